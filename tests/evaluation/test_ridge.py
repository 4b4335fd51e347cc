import pytest
import torch
from sklearn.linear_model import Ridge

from hf_infomax.evaluation.ridge import Moments, Samples, statistics


@pytest.mark.parametrize("kind", [Moments, Samples])
@pytest.mark.parametrize("samples", [12, 90])  # fewer and more than the 30 features: both solutions hold for either
def test_the_solution_is_that_of_scikit_learn(kind, samples):
    x, y = torch.randn(samples, 30) + 1, torch.randn(samples, 2) - 3
    weight, intercept = kind.of(x, y).solve(0.05) if kind is Moments else kind(x, y).solve(0.05)
    oracle = Ridge(alpha=0.05 * samples).fit(x.double(), y.double())
    torch.testing.assert_close(weight.T, torch.from_numpy(oracle.coef_).float(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(intercept, torch.from_numpy(oracle.intercept_).float(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("samples", [12, 90])
def test_statistics_of_parts_add_up(samples):
    x, y = torch.randn(samples, 30), torch.randn(samples, 1)
    whole = statistics(x, y, samples)
    parts = statistics(x[:10], y[:10], samples) + statistics(x[10:], y[10:], samples)
    assert isinstance(whole, Moments if samples >= 30 else Samples)
    for found, expected in zip(parts.solve(0.1), whole.solve(0.1), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_dependent_features_are_no_obstacle():
    x = torch.randn(300, 4) @ torch.randn(4, 200)  # a Gram matrix of rank 4
    weight, intercept = Moments.of(x, x[:, :1]).solve(1e-3)
    assert (x @ weight + intercept - x[:, :1]).abs().max() < 0.05
