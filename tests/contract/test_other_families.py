"""A quick look at every method on the families that the default suite does not test whole."""

import torch


def test_it_trains_saves_and_loads(matrix, other_cell):
    run, family = matrix.run(*other_cell), other_cell[1]
    start = matrix.logits(matrix.untrained(*other_cell), family)
    trained = matrix.logits(run.model, family)
    trains = any(p.requires_grad for p in run.model.parameters())
    assert torch.equal(trained, start) != trains
    tolerance = run.rounding
    loaded = matrix.logits(run.method.load(matrix.host(family), run.saved), family)
    torch.testing.assert_close(loaded, trained, rtol=tolerance, atol=tolerance)
