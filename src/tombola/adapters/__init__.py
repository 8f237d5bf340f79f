"""Tuners of PEFT, one for each kind of delta; importing this registers them."""

from tombola.adapters.bola import BolaModel
from tombola.adapters.bola_config import BolaConfig
from tombola.adapters.bola_layer import BolaLinear
from tombola.adapters.lora_dash import LoraDashModel, choose_directions
from tombola.adapters.lora_dash_config import LoraDashConfig
from tombola.adapters.lora_dash_layer import LoraDashLinear
from tombola.adapters.low_rank import LowRank
from tombola.adapters.masked_lora import MaskedLoraModel
from tombola.adapters.masked_lora_config import MaskedLoraConfig, masked_lora_counts
from tombola.adapters.masked_lora_layer import MaskedLoraLinear
from tombola.adapters.partitioned_lora import PartitionedLoraModel, partitioned_lora_layers
from tombola.adapters.partitioned_lora_config import PartitionedLoraConfig
from tombola.adapters.partitioned_lora_layer import PartitionedLoraLinear
from tombola.adapters.register import register_tuner
from tombola.adapters.rosa import RosaModel, rosa_entries, rosa_layers, write_rosa_counts
from tombola.adapters.rosa_config import RosaConfig
from tombola.adapters.rosa_layer import RosaLinear
from tombola.adapters.sparse_delta import SparseDeltaModel
from tombola.adapters.sparse_delta_access import awake, sparse_layers, values_parameter, write_counts
from tombola.adapters.sparse_delta_config import SparseDeltaConfig
from tombola.adapters.sparse_delta_layer import SparseDeltaLinear

register_tuner("bola", BolaConfig, BolaModel)
register_tuner("sparse_delta", SparseDeltaConfig, SparseDeltaModel)
register_tuner("rosa", RosaConfig, RosaModel)
register_tuner("lora_dash", LoraDashConfig, LoraDashModel)
register_tuner("masked_lora", MaskedLoraConfig, MaskedLoraModel)
register_tuner("partitioned_lora", PartitionedLoraConfig, PartitionedLoraModel)

__all__ = [
    "BolaConfig",
    "BolaLinear",
    "BolaModel",
    "LoraDashConfig",
    "LoraDashLinear",
    "LoraDashModel",
    "LowRank",
    "MaskedLoraConfig",
    "MaskedLoraLinear",
    "MaskedLoraModel",
    "PartitionedLoraConfig",
    "PartitionedLoraLinear",
    "PartitionedLoraModel",
    "RosaConfig",
    "RosaLinear",
    "RosaModel",
    "SparseDeltaConfig",
    "SparseDeltaLinear",
    "SparseDeltaModel",
    "awake",
    "choose_directions",
    "masked_lora_counts",
    "partitioned_lora_layers",
    "register_tuner",
    "rosa_entries",
    "rosa_layers",
    "sparse_layers",
    "values_parameter",
    "write_counts",
    "write_rosa_counts",
]
