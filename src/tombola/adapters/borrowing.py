"""When a layer's own weight may carry the delta for the length of a matrix product."""

from torch import nn


def may_borrow(layer: nn.Module) -> bool:
    """True for a frozen `nn.Linear` whose weight is a plain parameter, whole and in place, and that nothing listens to.

    Quantised, ZeRO-3 and FSDP weights are not plain parameters. Hooks (offloading, users' own) expect the layer to be
    called, which borrowing does not do.
    """
    if type(layer) is not nn.Linear:
        return False
    weight = layer.weight
    whole = type(weight) is nn.Parameter and not hasattr(weight, "ds_id")
    return whole and not weight.requires_grad and not _is_listened_to(layer)


def _is_listened_to(layer: nn.Module) -> bool:
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks) or "forward" in layer.__dict__  # accelerate's hooks replace the method
