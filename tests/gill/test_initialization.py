"""Ridge regression equals its definition."""

import torch

from gill.initialization import ridge


def test_ridge_is_least_squares_with_a_penalty():
    torch.manual_seed(0)
    x = torch.randn(50, 4, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5, 3.0]) + 1
    y = torch.randn(50, 3, dtype=torch.float64)
    weight, bias = ridge(x, y, penalty=0.7)
    centred = x - x.mean(0)
    strength = 0.7 * centred.square().sum(0).mean()
    # The same as ordinary least squares with rows that pull each weight to zero.
    rows = torch.cat([centred, strength.sqrt() * torch.eye(4, dtype=torch.float64)])
    wanted = torch.cat([y - y.mean(0), torch.zeros(4, 3, dtype=torch.float64)])
    expected = torch.linalg.lstsq(rows, wanted).solution
    torch.testing.assert_close(weight.T, expected)
    torch.testing.assert_close(x.mean(0) @ weight.T + bias, y.mean(0))


def test_without_penalty_a_linear_map_is_found():
    torch.manual_seed(1)
    x, true = torch.randn(30, 4), torch.randn(3, 4)
    weight, bias = ridge(x, x @ true.T + 2, penalty=0.0)
    torch.testing.assert_close(weight, true, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bias, torch.full((3,), 2.0), atol=1e-4, rtol=1e-4)
