"""Partial-LoRA's search: how much of each layer can be taken out before a few rows notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn

from tombola.adapters import MaskedLoraConfig
from tombola.methods.attach import complete
from tombola.methods.dense_first import ScaledRate
from tombola.tickets import Lines, kept_lines, last_passing, score, without_lines

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

Layers = Mapping[str, nn.Linear]  # by their paths in the host, in its order
Masked = Literal["both", "rows", "columns"]

SEARCH, IMPORTANCE = "densities", "importance"  # names in the run's folder and log


def target_layers(host: Host, config: MaskedLoraConfig) -> dict[str, nn.Linear]:
    """The layers that `config` will adapt. Raises ValueError where there is none, or one has no plain weight."""
    completed = cast(MaskedLoraConfig, complete(config, host))
    found: dict[str, nn.Linear] = {}
    for path, module in host.net.named_modules():
        if completed.target_modules and check_target_module_exists(completed, path):
            if type(module) is not nn.Linear:
                raise ValueError(
                    f"Partial-LoRA takes rows and columns out of weights, and {path} is a {type(module).__name__}: "
                    "expected torch.nn.Linear. Narrow target_modules, or load the model without quantisation."
                )
            found[path] = module
    if not found:
        raise ValueError(
            f"target_modules={completed.target_modules!r} names no layer of {host.name}: "
            "name linear layers by the ends of their paths, e.g. [q_proj, v_proj]."
        )
    return found


@dataclass
class Search:
    """Each layer alone, all others intact: the largest share of its lines without which accuracy stays."""

    net: nn.Module
    layers: Layers
    trainer: Trainer
    lines: Masked
    tau: float
    delta: float
    reference: float = 0.0  # accuracy of the whole model
    evaluations: int = 0

    def run(self, importance: Callable[[str], Lines]) -> dict[str, Tensor]:
        """`share/PATH` that may go, `rows/PATH` and `columns/PATH` that stay, `accuracy`, `evaluations`; on the CPU."""
        self.reference = self.accuracy()
        found: dict[str, Tensor] = {}
        with self.trainer.progress(SEARCH, len(self.layers)) as progress:
            for number, (path, layer) in enumerate(self.layers.items(), 1):
                lines = importance(path)
                share = self.share(layer, lines)
                rows, columns = self.kept(lines, share, least=1)
                found[f"share/{path}"] = torch.tensor(share, dtype=torch.float64)
                found |= {f"rows/{path}": rows.cpu(), f"columns/{path}": columns.cpu()}
                progress.show(number, f"{self.evaluations} evaluations, {path} keeps {1 - share:.2f}")
        found["accuracy"] = torch.tensor(self.reference, dtype=torch.float64)
        found["evaluations"] = torch.tensor(self.evaluations)
        return found

    @torch.no_grad()
    def share(self, layer: nn.Linear, lines: Lines) -> float:
        """The last of delta, 2 delta, ... up to 1 that passes, 0 if none does; the weight is put back to the bit."""
        whole = layer.weight.detach().clone()

        def passes(step: int) -> bool:
            layer.weight.copy_(without_lines(whole, *self.kept(lines, min(1.0, step * self.delta))))
            return self.accuracy() >= self.tau * self.reference

        try:
            return min(1.0, self.delta * last_passing(passes, int(1 / self.delta + 1e-9)))
        finally:
            layer.weight.copy_(whole)

    def kept(self, lines: Lines, share: float, *, least: int = 0) -> tuple[Tensor, Tensor]:
        """(out,) and (in,) bool: what stays of rows and of columns without the share; all of those not masked."""
        rows = kept_lines(lines.rows, 0.0 if self.lines == "columns" else share, least=least)
        return rows, kept_lines(lines.columns, 0.0 if self.lines == "rows" else share, least=least)

    def accuracy(self) -> float:
        """Of the net as it is."""
        self.evaluations += 1
        return self.trainer.accuracy(self.net)


def snip(net: nn.Module, layers: Layers, trainer: Trainer) -> dict[str, Lines]:
    """Sums over rows and columns of the mean over an epoch's batches of |W * G| (SNIP, Lee et al., 2019).

    A layer that a forward uses twice counts with both uses.
    """
    sums: dict[str, Lines] = {}
    batches = trainer.steps_per_epoch

    def see(path: str, gradient: Tensor) -> None:
        seen = summed(score("cs", layers[path].weight.detach(), gradient) / batches)
        sums[path] = Lines(*(a + b for a, b in zip(sums[path], seen, strict=True))) if path in sums else seen

    for step in range(batches):
        trainer.dense_gradients(net, layers, see, phase=IMPORTANCE, step=step)
    return sums


@torch.no_grad()
def magnitudes(net: nn.Module, layers: Layers, trainer: Trainer, *, steps: int, rate: float) -> dict[str, Lines]:
    """Sums over rows and columns of |W| after some steps that train the layers' weights; these are then put back."""
    start = {path: layer.weight.detach().cpu().clone() for path, layer in layers.items()}
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    with torch.enable_grad():
        trainer.train(net, phase=IMPORTANCE, steps=steps, hooks=[ScaledRate(rate)])
    sums = {path: summed(layer.weight.detach().abs()) for path, layer in layers.items()}
    for path, layer in layers.items():
        layer.weight.requires_grad_(False).copy_(start[path])
    return sums


def summed(entries: Tensor) -> Lines:
    """Sums of an (out, in) matrix along its rows and along its columns."""
    return Lines(entries.sum(1), entries.sum(0))
