"""The C of this folder (`sparse_cpu.c`, `masked_cpu.c`, `partitioned_cpu.c`), for float32 and bfloat16 on a CPU.

Where the package was installed without a C compiler, and for everything else, torch's operations do the same.
"""

import ctypes
import importlib.util
import itertools
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

HALF = {torch.float32: 0, torch.bfloat16: 1}
SPAN, ROWS, LANES = 128, 8, 16  # of cpu.h


def _load() -> ctypes.CDLL | None:
    found = importlib.util.find_spec("tombola.adapters.ops._cpu")
    try:
        return ctypes.CDLL(found.origin) if found and found.origin else None
    except OSError:  # no OpenMP that torch has loaded for all
        return None


LIBRARY = _load()


def is_compiled_for(matrix: Tensor) -> bool:
    """Whether there is compiled code for a matrix of this type here."""
    return LIBRARY is not None and matrix.device.type == "cpu" and matrix.dtype in HALF


def call(function: str, *arguments: Any) -> None:
    """Calls the C function: tensors as addresses, integers as 64 bits, structures by reference."""
    getattr(LIBRARY, function)(*map(_passed, arguments))


def in_one_allocation(*shapes: tuple[int, ...]) -> list[Float[Tensor, "*shape"]]:
    """Vectors and matrices in one allocation, for what is not kept.

    Several large allocations cost a good part of what is done in them.
    """
    sizes = [math.prod(shape) for shape in shapes]
    starts = itertools.accumulate(sizes, initial=0)
    whole = torch.empty(sum(sizes))
    return [whole.as_strided(shape, (*shape[1:], 1), start) for shape, start in zip(shapes, starts, strict=False)]


def rounded_up(number: int, multiple: int) -> int:
    """The least multiple that is not below the number."""
    return -(-number // multiple) * multiple


def numbers(*names: str) -> list[tuple[str, Any]]:
    """Fields of a structure of addresses and counts, which all have 64 bits."""
    return [(name, ctypes.c_int64) for name in names]


def _passed(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.byref(argument)
