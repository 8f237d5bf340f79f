"""AdamW with 8-bit moments (Dettmers et al., 2022, arXiv 2110.02861), from bitsandbytes, which is optional."""

from importlib.util import find_spec
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}  # what a byte stands for: constants that all parameters share


def check_eight_bit(kind: str) -> None:
    """Raises ValueError where `training.optimizer=adamw_8bit` cannot work: without bitsandbytes, or under ZeRO."""
    if find_spec("bitsandbytes") is None:
        raise ValueError(
            "training.optimizer=adamw_8bit needs bitsandbytes, which is not installed. Install tombola[quantised], or "
            "set training.optimizer=adamw."
        )
    if kind.startswith("zero"):
        raise ValueError(
            f"training.optimizer=adamw_8bit does not go with launch={kind}: its blocks of 256 moments cross the "
            "borders at which ZeRO cuts. Set launch=ddp, or training.optimizer=adamw, which ZeRO splits over the ranks."
        )


def adamw_8bit(groups: list[dict[str, Any]], **options: Any) -> Optimizer:
    """bitsandbytes' AdamW8bit; parameters of fewer than 4096 entries keep float32 moments there."""
    from bitsandbytes.optim import AdamW8bit

    class Resumable(AdamW8bit):  # type: ignore[misc]
        """Loads a checkpoint of tensors, in which `step` is one too and the tables are not repeated."""

        def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
            state = {number: self._with_tables(entries) for number, entries in state_dict["state"].items()}
            super().load_state_dict({**state_dict, "state": state}, move_to_device)

        def _with_tables(self, entries: dict[str, Tensor]) -> dict[str, Any]:
            tables = {key: self.name2qmap[name] for key, name in TABLES.items() if "absmax1" in entries}
            return {**entries, "step": int(entries["step"]), **tables}

    return Resumable(groups, **options)
