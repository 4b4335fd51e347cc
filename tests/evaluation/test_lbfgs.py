import pytest
import torch

from hf_infomax.evaluation.lbfgs import minimise, second_moments


@pytest.mark.parametrize("samples", [30, 400])  # fewer than features, and more than four times as many
def test_a_quadratic_has_the_closed_form_of_ridge_regression(samples):
    x = torch.randn(samples, 40) * torch.logspace(0, -2, 40)
    x -= x.mean(0)
    target = torch.randn(samples, 2)

    def squares(scores):
        return (scores - target).square().sum() / (2 * samples), (scores - target) / samples

    found = minimise(squares, x, 0.01, torch.zeros(2, 41), curvature=1.0, tolerance=1e-5)
    expected = torch.linalg.solve(x.T @ x / samples + 0.01 * torch.eye(40), x.T @ (target - target.mean(0)) / samples)
    torch.testing.assert_close(found[:, :-1], expected.T, atol=2e-3, rtol=0)
    torch.testing.assert_close(found[:, -1], target.mean(0), atol=1e-3, rtol=0)


def test_the_second_moments_of_few_rows_are_exact():
    x = torch.randn(30, 10)
    torch.testing.assert_close(second_moments(x), x.T @ x / 30)
