"""Layer drop: layers with few of the model's best entries get none (arXiv 2507.07140, Eq. 5 and 6)."""

from collections.abc import Mapping

from torch import Tensor

from tombola.tickets.draw import draw


def kept_layers(scores: Mapping[str, Tensor], budgets: Mapping[str, int], *, block: int = 1) -> list[str]:
    """The layers that keep their ticket, in the mapping's order; at least one.

    One threshold is drawn over all layers: the K-th largest score, K the sum of `budgets`. A layer is kept if at least
    as large a share of its units reaches it as its own budget is of its units. Equation 6 compares a layer's tensor of
    scores with that number; the share is what the authors' code makes of it.
    """
    best = draw(scores, sum(budgets.values()), block=block, scope="model")
    # Compared as counts: were shares compared with a ratio that each budget rounds down, all layers could be dropped.
    return [name for name in scores if best[name].numel() >= budgets[name]]
