"""Gradients of a sparse delta's values and gate: `G = Gy^T X` at the support, with delta = scale * gate * values.

For elements or tiles that are many or small, `G` is one dense product, which is gathered from and freed.

Precision: `G` is a product in the activations' dtype, summed in float32 or wider inside, then rounded to that dtype,
which compiled code leaves out; what follows is in the values' dtype, float32 at least.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from tombola.adapters.ops.sparse_cpu import compiled_gradients, compiled_pays
from tombola.adapters.ops.sparse_sampled import sampled_gradients, sampling_pays
from tombola.adapters.ops.sparse_support import Support, take
from tombola.adapters.ops.sparse_tiles import tile_gradients, tiles_pay


def sparse_gradients(
    x: Float[Tensor, "t in"],
    grad: Float[Tensor, "t out"],
    values: Float[Tensor, "u *tile"],
    gate: Float[Tensor, "1"] | None,
    scale: float,
    support: Support,
    needed: tuple[bool, bool],
) -> tuple[Shaped[Tensor, "u *tile"] | None, Shaped[Tensor, "1"] | None]:
    """Gradients of (values, gate), None where not needed."""
    for_values, for_gate = needed
    if not any(needed):
        return None, None
    if values.numel() == 0:
        zero_gate = torch.zeros_like(gate) if for_gate and gate is not None else None
        return torch.zeros_like(values) if for_values else None, zero_gate
    at_support = gradients_at(x, grad, support).to(torch.promote_types(values.dtype, torch.float32))
    along = None
    if for_gate and gate is not None:
        product = torch.dot(at_support.flatten(), values.flatten().to(at_support.dtype))
        along = (scale * product).to(gate.dtype).view_as(gate)
    if not for_values:
        return None, along
    factor: Tensor | float = scale if gate is None else scale * gate.detach().to(at_support.dtype)
    return (at_support if factor == 1.0 else at_support.mul_(factor)).to(values.dtype), along


def gradients_at(x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], support: Support) -> Float[Tensor, "u *tile"]:
    """grad^T x at the support, in the values' layout, by the cheapest way."""
    if compiled_pays(x, support):
        return compiled_gradients(x, grad, support)
    if tiles_pay(support, x.dtype):
        return tile_gradients(x, grad, support)
    if sampling_pays(x, support):
        return sampled_gradients(x, grad, support)
    return take(grad.t() @ x, support)
