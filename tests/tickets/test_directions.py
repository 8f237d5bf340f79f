import pytest
import torch

from tombola.tickets import task_directions


def test_directions_of_a_diagonal_weight_by_hand():
    """sigma 8, 4, 2, 1 and changes 2, -1, 1.5, -0.9: rates 0.25, 0.25, 0.75, 0.9."""
    weight = torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64))
    delta = torch.diag(torch.tensor([2.0, -1.0, 1.5, -0.9], dtype=torch.float64)) + torch.ones(4, 4).triu(1)
    eye = torch.eye(4, dtype=torch.float64)
    u, v = task_directions(weight, delta, eye, 2)
    assert torch.equal(u.abs(), eye[:, [2, 3]])
    assert torch.equal(v, u.T), "a direction's two signs go together"
    assert torch.equal(task_directions(weight, delta, eye, 3)[0].abs(), eye[:, [0, 2, 3]]), "of equals the larger sigma"


def test_a_direction_that_the_weight_lacks_comes_first_and_one_that_nothing_has_last():
    weight = torch.diag(torch.tensor([3.0, 2.0, 0.0, 0.0]))
    delta = torch.diag(torch.tensor([1.0, 1.0, 0.5, 0.0]))
    chosen = [task_directions(weight, delta, torch.eye(4), n)[0].abs().argmax(dim=0).tolist() for n in (1, 2, 3)]
    assert chosen == [[2], [1, 2], [0, 1, 2]]


@pytest.mark.parametrize(("rows", "columns"), [(6, 9), (9, 6)])
def test_rates_are_those_of_the_dense_delta(rows, columns):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    weight, b, a = draw(rows, columns), draw(rows, 3), draw(3, columns)
    u, v = task_directions(weight, b, a, 4)
    assert (u.shape, v.shape) == ((rows, 4), (4, columns))
    left, sigma, right = torch.linalg.svd(weight, full_matrices=False)
    delta = b @ a
    rates = [abs(float(left[:, i] @ delta @ right[i])) / float(sigma[i]) for i in range(6)]
    best = sorted(sorted(range(6), key=lambda i: -rates[i])[:4])
    torch.testing.assert_close(u, left[:, best], rtol=0, atol=1e-10)
    torch.testing.assert_close(v, right[best], rtol=0, atol=1e-10)


def test_narrow_weights_are_decomposed_in_float32():
    weight = torch.diag(torch.tensor([8.0, 4.0, 2.0])).bfloat16()
    u, v = task_directions(weight, torch.eye(3).bfloat16(), torch.eye(3), 1)
    assert u.dtype == v.dtype == torch.float32
    assert u.abs().argmax() == 2


def test_more_directions_than_the_weight_has_are_refused():
    with pytest.raises(ValueError, match="4 of 3 scores cannot be chosen"):
        task_directions(torch.eye(3, 5), torch.ones(3, 1), torch.ones(1, 5), 4)
