"""SpaRTA (Rios et al., 2025, arXiv 2502.15975): random entries of the pretrained weights are trained, from zero.

python train.py method=sparta
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tombola.adapters import sparse_layers
from tombola.methods.dense_first import ADAPTER
from tombola.methods.sparse import SparseMethod, attach

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

COUNT_MODES = ("per_module_k", "density", "global_bernoulli")


@dataclass(frozen=True)
class Sparta(SparseMethod):
    """Draw entries of the targets, add trainable deltas there that start at zero, train them with a new head.

    `count_mode`, and which of the config's fields it reads:
    - `per_module_k`, `count`: k entries of each target without replacement, whatever its shape. BoLA's variant, with
      `scale` as its alpha (BoLA, tables 4 to 6).
    - `density`: that share of each target, without replacement.
    - `global_bernoulli`, `density`: every entry by itself with this probability, so that the layers' counts vary. The
      authors' own: at sparsity s, a model of N parameters of which M may be drawn has probability (1 - s) N / M.

    Differences from the authors' code: it draws from every tensor that is not frozen, here from `target_modules`; it
    adds the deltas to the weights for the forward and subtracts them again, which drifts in bfloat16, here the weights
    are never touched; its optional dropout of deltas is left out, and so is BoLA's adapter dropout of 0.1.
    """

    count_mode: Literal["per_module_k", "density", "global_bernoulli"] = "per_module_k"

    def __post_init__(self) -> None:
        if self.count_mode not in COUNT_MODES:
            raise ValueError(f"count_mode must be one of {', '.join(COUNT_MODES)}. Got {self.count_mode!r}.")
        config = self.config
        read, other = ("count", "density") if self.count_mode == "per_module_k" else ("density", "count")
        if getattr(config, read) is None or getattr(config, other) is not None or config.support != "random":
            raise ValueError(
                f"count_mode={self.count_mode} reads {read}: set config.{read}, config.{other}=null and "
                f"support=random. Got count={config.count}, density={config.density}, support={config.support}."
            )
        if self.count_mode == "global_bernoulli" and config.structure != "element":
            raise ValueError(f"global_bernoulli draws single entries: set structure=element. Got {config.structure}.")

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter."""
        model = attach(host, self.config, seed=self.seed)
        if self.count_mode == "global_bernoulli":
            assert self.config.density is not None
            for path, layer in sparse_layers(model).items():
                index = drawn(path, layer.all_units(ADAPTER), self.config.density, self.config.seed)
                layer.set_support(ADAPTER, index, torch.zeros(index.numel()))
        trainer.train(model, phase="train")
        return model


def drawn(path: str, entries: int, probability: float, seed: int) -> Tensor:
    """(drawn,) int64, ascending: entries drawn each by itself; the layer's path makes the draws differ."""
    # Hashed together: of a seed, torch's generator on the CPU takes 32 bits.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {path}".encode()))
    return torch.nonzero(torch.rand(entries, generator=generator, dtype=torch.float64) < probability).flatten()
