"""The keys and values that a model keeps of what it has read, where they can be picked and repeated by row."""

import copy
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# Of transformers' layers of a cache, those that hold keys and values and nothing else. Exactly these: a subclass may
# keep a recurrent state, which their `batch_select_indices` knows nothing of.
PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
# Rotary embeddings whose angles change once a text is longer: its first keys are then not those of a shorter text.
BY_LENGTH = ("dynamic", "longrope")


def empty_cache(model: nn.Module) -> DynamicCache | None:
    """An empty cache for `model`; None where keys and values are not all that goes on from one call to the next.

    That is so of recurrent models and of linear attention, of encoder-decoders, and of positions by `BY_LENGTH`.
    """
    config: Any = model.config
    decoder = config.get_text_config(decoder=True)
    ropes = getattr(decoder, "rope_parameters", None) or {}
    by_layer = [rope for rope in ropes.values() if isinstance(rope, dict)]
    if any(rope.get("rope_type") in BY_LENGTH for rope in (ropes, *by_layer)):
        return None
    if config.is_encoder_decoder or getattr(model, "_is_stateful", False):
        return None
    cache = DynamicCache(config=config)
    return cache if all(type(layer) in PLAIN_LAYERS for layer in cache.layers) else None


def picked(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """A cache of the given rows, each as often as it is named; `cache` stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen
