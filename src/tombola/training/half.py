"""Steps of bfloat16 parameters: computed in float32, written back with stochastic rounding.

bfloat16 has 8 bits of precision, so a step below 2^-9 of a value would be lost by rounding to the nearest, every time.
Rounded up with the probability of what is left over, it is there on average (Gupta et al., 2015, arXiv 1502.02551).
"""

from collections.abc import Mapping

import torch
from jaxtyping import BFloat16, Float32
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.training.random_state import derived_seed


def stand_in(parameter: nn.Parameter) -> nn.Parameter:
    """What the optimizer holds for a parameter: for a bfloat16 one an empty float32 one, filled for its step alone."""
    if parameter.dtype != torch.bfloat16:
        return parameter
    return nn.Parameter(torch.empty((0,) * parameter.ndim, device=parameter.device))


@torch.no_grad()
def step_halves(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], stand_ins: Mapping[str, nn.Parameter], *, seed: int
) -> None:
    """The optimizer's step for the bfloat16 parameters, one at a time; no other may have a gradient now.

    The moments are float32, as the stand-ins are. What is drawn is of `seed` and the name: the same on every rank.
    """
    for name, parameter in parameters.items():
        standing = stand_ins[name]
        if standing is parameter or parameter.grad is None:
            continue
        empty = standing.data
        standing.data, standing.grad = parameter.float(), parameter.grad.float()
        optimizer.step()
        generator = torch.Generator(parameter.device).manual_seed(derived_seed(seed, name))
        parameter.copy_(stochastically_rounded(standing.data, generator))
        standing.data, standing.grad = empty, None


def stochastically_rounded(values: Float32[Tensor, "*shape"], generator: torch.Generator) -> BFloat16[Tensor, "*shape"]:
    """One of the two nearest bfloat16 numbers, the nearer with the greater probability: the mean is the value."""
    # bfloat16 is float32's upper half; a carry out of the lower half is a step to the next one away from 0.
    noise = torch.randint(1 << 16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    bits = (values.view(torch.int32) + noise) & -(1 << 16)
    return bits.view(torch.float32).to(torch.bfloat16)
