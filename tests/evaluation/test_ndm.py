import math

import pytest
import torch

from hf_infomax import UsageError
from hf_infomax.evaluation.ndm import neural_dependency, shuffle_factors

QUICK = {"runs": 2, "hidden": 32, "steps": 200, "batch_size": 128, "learning_rate": 5e-3, "progress": False}


def factors(correlation, samples=3000, count=3):
    generator = torch.Generator().manual_seed(0)
    common, own = torch.randn(samples, 1, generator=generator), torch.randn(samples, count, generator=generator)
    return math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_it_is_the_total_correlation_of_gaussians(correlation, sigmoid):
    truth = -0.5 * (2 * math.log(1 - correlation) + math.log(1 + 2 * correlation))  # 0, and 0.52
    assert neural_dependency(factors(correlation), sigmoid=sigmoid, **QUICK).mean == pytest.approx(truth, abs=0.15)


def test_the_sigmoid_is_applied():
    y, options = factors(0.6, samples=60), QUICK | {"steps": 3}
    assert neural_dependency(y, sigmoid=True, **options) == neural_dependency(y.sigmoid(), **options)
    assert neural_dependency(y, sigmoid=True, **options) != neural_dependency(y, **options)


def test_every_factor_keeps_its_values_and_loses_its_company():
    y = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 3)
    shuffled = shuffle_factors(y, 2, torch.Generator().manual_seed(0))
    assert shuffled.shape == (2000, 2, 3)
    for shuffle in shuffled.unbind(1):
        torch.testing.assert_close(shuffle.sort(dim=0).values, y.sort(dim=0).values)
    correlations = shuffled.flatten(1).T.corrcoef() - torch.eye(6)
    assert correlations.abs().max() < 0.1


def test_a_single_factor_is_refused():
    with pytest.raises(UsageError, match="A single factor"):
        neural_dependency(torch.randn(60, 1), **QUICK)
    with pytest.raises(UsageError, match="shuffles=0"):
        neural_dependency(torch.randn(60, 2), shuffles=0, **QUICK)
