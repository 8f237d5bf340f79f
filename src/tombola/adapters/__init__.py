"""Tuners of PEFT, one for each kind of delta; importing this registers them."""

from tombola.adapters.bola import BolaModel
from tombola.adapters.bola_config import BolaConfig
from tombola.adapters.bola_layer import BolaLinear
from tombola.adapters.register import register_tuner

register_tuner("bola", BolaConfig, BolaModel)

__all__ = ["BolaConfig", "BolaLinear", "BolaModel", "register_tuner"]
