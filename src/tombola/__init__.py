"""Sparse and lottery-ticket adapters for PEFT: `import tombola` registers them.

    import tombola
    model = peft.get_peft_model(model, tombola.BolaConfig(target_modules=["q_proj", "v_proj"]))

Import it before `PeftModel.from_pretrained` too, in every process that loads an adapter; without it PEFT ends with
`KeyError: 'BOLA'`.
"""

from tombola.adapters import (
    BolaConfig,
    BolaModel,
    LoraDashConfig,
    LoraDashModel,
    MaskedLoraConfig,
    MaskedLoraModel,
    PartitionedLoraConfig,
    PartitionedLoraModel,
    RosaConfig,
    RosaModel,
    SparseDeltaConfig,
    SparseDeltaModel,
)

__version__ = "0.1.0"

__all__ = [
    "BolaConfig",
    "BolaModel",
    "LoraDashConfig",
    "LoraDashModel",
    "MaskedLoraConfig",
    "MaskedLoraModel",
    "PartitionedLoraConfig",
    "PartitionedLoraModel",
    "RosaConfig",
    "RosaModel",
    "SparseDeltaConfig",
    "SparseDeltaModel",
    "__version__",
]
