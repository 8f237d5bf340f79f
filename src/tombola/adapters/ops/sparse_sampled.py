"""A few single entries of `Gy^T X` on a CPU, each as a dot product over the tokens, where a dense product wastes most.

torch's sampled product (SDDMM) reads both operands as rows over the tokens; where its float32 kernel is cheaper than
the dense product was measured on two cores: see docs/kernels.md.
"""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.adapters.ops.sparse_support import Support

TOKENS = 512  # at once: rows of so many numbers, of a layer's width, stay in a core's cache

with warnings.catch_warnings():  # torch says once in a process that its CSR tensors are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.zeros(1), (1, 1), check_invariants=False)


def sampling_pays(x: Float[Tensor, "t in"], support: Support) -> bool:
    """Whether dot products for the chosen entries alone are cheaper than one dense product.

    In units of an entry of the dense product an entry costs 5, and putting a row of an operand in order 96.
    """
    if support.index is None or support.block > 1 or x.device.type != "cpu":
        return False
    out_features, in_features = support.shape
    cost = 5 * support.index.numel() + 96 * (out_features + in_features)
    return x.dtype in (torch.float32, torch.float64) and cost < out_features * in_features


def sampled_gradients(x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], support: Support) -> Float[Tensor, "u"]:
    """The chosen entries of grad^T x."""
    assert support.index is not None
    out_features, in_features = support.shape
    firsts = torch.arange(0, out_features * in_features + 1, in_features, dtype=support.index.dtype)
    rows, columns = torch.searchsorted(support.index, firsts, out_int32=True), support.index % in_features
    sums = torch.sparse_csr_tensor(
        rows, columns.int(), x.new_zeros(columns.numel()), support.shape, check_invariants=False
    )
    for some_x, some_grad in zip(x.split(TOKENS), grad.split(TOKENS), strict=True):
        sums = torch.sparse.sampled_addmm(sums, _over_tokens(some_grad), _over_tokens(some_x).t())
    return sums.values()


def _over_tokens(x: Float[Tensor, "t width"]) -> Float[Tensor, "width t"]:
    # torch copies a transposed matrix in one thread, anything of three dimensions in all of them.
    return x.t().unsqueeze(1).contiguous().squeeze(1)
