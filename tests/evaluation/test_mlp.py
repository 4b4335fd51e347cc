import pytest
import torch

from hf_infomax.evaluation.mlp import mlp_probe, step_decay
from hf_infomax.evaluation.probes import linear_probe
from hf_infomax.models.errors import UsageError

OPTIONS = {"epochs": 12, "average": 3, "batch_size": 16, "learning_rate": 1e-2, "progress": False}


@pytest.fixture
def quadrants():
    """Classes that no line parts."""
    x = torch.randn(500, 2)
    labels = (x[:, 0] * x[:, 1] > 0).long()
    return x[:300], labels[:300], x[300:], labels[300:]


def test_it_reads_what_a_linear_probe_cannot(quadrants):
    assert mlp_probe(*quadrants, **OPTIONS).value > 0.9
    assert linear_probe(*quadrants).value < 0.7


def test_a_seed_repeats_and_leaves_the_global_state_alone(quadrants):
    state = torch.get_rng_state()
    with torch.inference_mode():  # as features come from it
        first = mlp_probe(*quadrants, seed=3, **OPTIONS)
    assert first == mlp_probe(*quadrants, seed=3, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_rate_falls_as_of_200_epochs_after_120_and_160():
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], 1.0)
    decay, rates = step_decay(optimizer, 200), []
    for _ in range(200):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        decay.step()
    assert [rates[i] for i in (119, 120, 159, 160)] == pytest.approx([1.0, 0.2, 0.2, 0.04])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"average": 31}, "last 31 of 30"), ({"epochs": 0}, "0 epochs"), ({"batch_size": 0}, "batches of 0")],
)
def test_mistakes_are_named(quadrants, options, message):
    with pytest.raises(UsageError, match=message):
        mlp_probe(*quadrants, **options)
