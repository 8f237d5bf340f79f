"""Parameters of a run by kind of module, counted on modules without values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tombola.models.adapted import Adapted, attach_empty
from tombola.models.head import head_modules

GATES, HEAD, REST = "gates", "head", "rest"


@dataclass(frozen=True)
class Kind:
    """The modules that share a name, added up over the model."""

    name: str
    modules: int
    trainable: int  # parameters
    stored: int  # numbers in the file that users load: parameters, and the indices of sparse adapters
    base: int  # parameters of the model itself


@dataclass(frozen=True)
class Inputs:
    """Widths of what the trained linear layers read, added up over the model."""

    each: int  # layer by layer
    shared: int  # once for layers that read the same, as query, key and value do: one parent, one width


@dataclass(frozen=True)
class Counts:
    """What a method trains, and what memory needs to know of it."""

    kinds: tuple[Kind, ...]
    frozen: int
    inputs: Inputs
    entries: int = 0  # of the adapted layers' weights: what a dense delta of them has

    @property
    def trainable(self) -> int:
        """All that is trained, head included."""
        return sum(kind.trainable for kind in self.kinds)


def count(method: Mapping[str, Any], model: Mapping[str, Any], net: PreTrainedModel) -> Counts:
    """The counts of `conf/method` on `net`, which is on the meta device and is changed.

    Raises ValueError for a method whose parameters cannot be told from its config; errors of the tuner (a grid that
    does not divide a layer) come out as they are.
    """
    if method.get("config"):
        return _adapter(model, net, method)
    target = str(method["_target_"])
    if target.endswith(".FullFinetuning"):
        return _everything(model, net)
    if target.endswith(".Base"):
        return Counts(tuple(_head_kind(model, net)), net.num_parameters() - head_size(model, net), Inputs(0, 0))
    raise ValueError(
        f"plan=true cannot count method={method['name']}: {target} has no method.config with an adapter's settings. "
        "Leave plan=true out."
    )


def head_size(model: Mapping[str, Any], net: nn.Module) -> int:
    """Parameters of the newly initialised modules."""
    return sum(_size(net.get_submodule(name).parameters()) for name in head_modules(model))


def _adapter(model: Mapping[str, Any], net: PreTrainedModel, method: Mapping[str, Any]) -> Counts:
    frozen, head = net.num_parameters() - head_size(model, net), _head_kind(model, net)
    on_residual = str(method["_target_"]).endswith(".Milora")
    adapted = attach_empty(net, method["config"], head_modules(model), on_residual=on_residual)
    kinds = [_adapter_kind(name, adapted, paths) for name, paths in by_target(adapted.layers, adapted.targets).items()]
    gates = _size(parameter for layer in adapted.layers.values() for parameter in _own(layer, gates=True))
    extra = [Kind(GATES, len(adapted.layers), gates, gates, 0)] if gates else []
    entries = sum(int(layer.out_features * layer.in_features) for layer in adapted.layers.values())
    return Counts((*kinds, *extra, *head), frozen, _inputs(adapted.layers), entries)


def _adapter_kind(name: str, adapted: Adapted, paths: list[str]) -> Kind:
    layers: list[Any] = [adapted.layers[path] for path in paths]
    trainable = _size(parameter for layer in layers for parameter in _own(layer, gates=False))
    base = _size(parameter for layer in layers for parameter in layer.get_base_layer().parameters())
    stored = sum(adapted.stored.get(path, 0) for path in paths)
    gates = _size(parameter for layer in layers for parameter in _own(layer, gates=True))  # a kind of their own
    return Kind(name, len(layers), trainable, stored - gates, base)


def _own(layer: nn.Module, *, gates: bool) -> Iterator[nn.Parameter]:
    """The adapter's trainable parameters in a layer; a gate is told by its name."""
    for name, parameter in layer.named_parameters():
        if not name.startswith("base_layer.") and parameter.requires_grad and ("gate" in name.split(".")[0]) is gates:
            yield parameter


def _everything(model: Mapping[str, Any], net: PreTrainedModel) -> Counts:
    """Every weight trained and saved: the linear layers by name, then the rest."""
    linears = {path: module for path, module in net.named_modules() if isinstance(module, nn.Linear)}
    head = head_modules(model)
    inside = {path: module for path, module in linears.items() if not path.startswith(head)} if head else linears
    sizes = {
        name: (len(paths), _size(p for path in paths for p in inside[path].parameters()))
        for name, paths in by_target(inside, model["linears"]).items()
        if name in model["linears"]
    }
    kinds = [Kind(name, modules, size, size, size) for name, (modules, size) in sizes.items()]
    rest = net.num_parameters() - head_size(model, net) - sum(kind.base for kind in kinds)
    return Counts((*kinds, Kind(REST, 0, rest, rest, rest), *_head_kind(model, net)), 0, _inputs(inside))


def _inputs(layers: Mapping[str, Any]) -> Inputs:
    widths = {path: int(layer.in_features) for path, layer in layers.items()}
    distinct = {(path.rpartition(".")[0], width) for path, width in widths.items()}
    return Inputs(sum(widths.values()), sum(width for _, width in distinct))


def by_target(layers: Mapping[str, nn.Module], targets: Iterable[str]) -> dict[str, list[str]]:
    """Paths under the longest target that ends them (`attention.output.dense` before `output.dense`), else the leaf."""
    ordered = sorted(targets, key=len, reverse=True)
    groups: dict[str, list[str]] = {}
    for path in layers:
        leaf = path.rpartition(".")[2]
        kind = next((target for target in ordered if f".{path}".endswith(f".{target}")), leaf)
        groups.setdefault(kind, []).append(path)
    return groups


def _head_kind(model: Mapping[str, Any], net: nn.Module) -> list[Kind]:
    size = head_size(model, net)
    return [Kind(HEAD, len(head_modules(model)), size, size, 0)] if size else []


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
