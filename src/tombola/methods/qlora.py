"""QLoRA (Dettmers et al., 2023, arXiv 2305.14314): LoRA on a frozen model in four bits.

python train.py method=qlora
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from tombola.methods.adapter import Adapter
from tombola.models.four_bit import quantise

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

KINDS = ("nf4", "fp4")


@dataclass(frozen=True)
class Qlora(Adapter):
    """`Adapter` on the host in four bits: what is trained and what is saved is a plain LoRA.

    It is evaluated on the four-bit base that it was trained on; users load that with transformers'
    `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)`.

    The quantised model is the original's linear layers; norms and embeddings stay in its dtype, in which products are
    too. The authors' code has the norms in float32.
    """

    quantisation: str = "nf4"
    double_quantisation: bool = True

    def __post_init__(self) -> None:
        if self.quantisation not in KINDS:
            raise ValueError(f"quantisation must be one of {', '.join(KINDS)}. Got {self.quantisation!r}.")

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host, quantised, with its trained adapter. Raises ValueError where bitsandbytes is not installed."""
        self.base(host)
        return super().fit(host, trainer)

    def load(self, host: Host, folder: Path) -> nn.Module:
        """`PeftModel.from_pretrained` on the host's weights, quantised."""
        self.base(host)
        return super().load(host, folder)

    def base(self, host: Host) -> nn.Module:
        """`host.net` in four bits, in place: what the adapter is trained on and compared with."""
        quantise(host.net, host.head, kind=self.quantisation, double=self.double_quantisation)
        return host.net
