"""One phase of training for any tuner of PEFT: BoLA, LoRA, DoRA, rsLoRA, PiSSA, SHiRA are YAMLs of this class.

python train.py method=bola
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from peft import PeftConfig, PeftModel
from torch import nn

from tombola.methods.attach import attach, forget_shira_layers
from tombola.methods.portable import save_adapter
from tombola.methods.residual import export_plain_lora, is_pissa

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class Adapter:
    """Attach `config`'s adapter to the frozen host, train it with the head, save it as PEFT does.

    `config` is any PEFT config; its `task_type` and `modules_to_save` are taken from the host while they are None.
    `seed` draws the adapter's initial values, whatever was drawn before.
    """

    saved_in: ClassVar[str] = "adapter"

    config: PeftConfig
    seed: int = 0

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter, a `PeftModel`. Under PiSSA its base weights are the residual."""
        model = attach(host, self.config, seed=self.seed)
        try:
            trainer.train(model, phase="train")
        finally:
            forget_shira_layers()
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        """`adapter_config.json`, `adapter_model.safetensors` and a README that says how to load them."""
        adapted = cast(PeftModel, model)
        save_adapter(adapted, folder)
        if is_pissa(adapted.peft_config["default"]):
            export_plain_lora(adapted, folder)

    def load(self, host: Host, folder: Path) -> nn.Module:
        """`PeftModel.from_pretrained` on the host's original weights."""
        return cast(nn.Module, PeftModel.from_pretrained(host.net, str(folder)).eval())
