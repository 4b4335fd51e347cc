import math
from statistics import stdev

import pytest
import torch
from torch import nn

from hf_infomax import UsageError
from hf_infomax.evaluation import divergence as module
from hf_infomax.evaluation.divergence import (
    Estimate,
    ParallelLinear,
    divergence,
    epochs,
    maximise,
    run_generators,
    split,
)
from hf_infomax.evaluation.mine import PairCritic


def correlated(samples, rho=0.9):
    x, noise = torch.randn(2, samples, 1, generator=torch.Generator().manual_seed(0))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def train(seeds, steps=30, **options):
    x, y = correlated(300)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    critic = PairCritic(x[:200], y[:200], 16, 2, generators)
    parts = [(x[part], y[part]) for part in (slice(0, 50), slice(200, 250), slice(250, 300))]
    settings = {"steps": steps, "learning_rate": 1e-2, "moving_average": True, "progress": False, "label": ""} | options
    stream = epochs(lambda indices: (x[indices], y[indices]), 200, 64)
    return critic, parts, maximise(critic, stream, generators, *parts, **settings)


def test_the_spread_is_of_a_sample_and_a_single_run_has_none():
    assert Estimate((1.0, 2.0, 4.0), (), {}).std == stdev((1.0, 2.0, 4.0))
    assert math.isnan(Estimate((1.0,), (1.0,), {}).std)


@pytest.mark.parametrize("bias", [True, False])
def test_a_run_is_a_plain_linear_layer_and_does_not_know_the_others(bias):
    layer = ParallelLinear(3, 4, run_generators(5, 2), bias=bias)
    alone = ParallelLinear(3, 4, run_generators(6, 1), bias=bias)
    x = torch.randn(2, 7, 3)
    plain = nn.Linear(3, 4, bias=bias)
    with torch.no_grad():
        plain.weight.copy_(layer.weight[1].T)
        if bias:
            plain.bias.copy_(layer.bias[1, 0])
    torch.testing.assert_close(layer(x)[1], plain(x[1]))
    torch.testing.assert_close(layer(x)[1], alone(x[1:])[0])
    assert layer.weight.abs().max() <= 1 / math.sqrt(3)


def test_every_run_is_what_it_is_alone():
    together, alone = train([3, 4, 5])[2], train([4])[2]
    assert together.values[1] == pytest.approx(alone.values[0], abs=1e-3)
    assert {step: values[1] for step, values in together.curve.items()} == pytest.approx(
        {step: values[0] for step, values in alone.curve.items()}, abs=1e-3
    )
    assert len(set(together.values)) == 3


@pytest.mark.parametrize("moving_average", [True, False])
def test_the_estimate_is_that_of_the_best_step_and_grows_from_nothing(moving_average):
    critic, (training, validation, held_out), found = train([0, 1], steps=60, moving_average=moving_average)
    assert next(iter(found.curve)) == 0
    assert list(found.curve)[-1] == 60
    assert len(found.curve) == module.CHECKS + 1
    for run in (0, 1):
        best = max(values[run] for values in found.curve.values())
        assert divergence(critic, validation, 2)[run].item() == pytest.approx(best, abs=1e-5)
    assert divergence(critic, held_out, 2).tolist() == pytest.approx(found.values)
    assert divergence(critic, training, 2).tolist() == pytest.approx(found.training)
    assert 0.4 < found.mean < 1.4  # the truth: 0.83


def test_pieces_share_one_logarithm(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)

    class Given(nn.Module):
        def forward(self, joint, product):
            return joint, product

    joint, product = torch.randn(10), torch.randn(10, 3)
    expected = joint.mean() - product.exp().mean().log()
    assert divergence(Given(), (joint, product), 2).tolist() == pytest.approx([expected.item()] * 2, abs=1e-6)


def test_an_epoch_shows_every_sample_once():
    stream = epochs(lambda indices: (indices,), 10, 5)(torch.Generator().manual_seed(0))
    for _ in range(2):
        assert sorted(torch.cat([next(stream)[0] for _ in range(2)]).tolist()) == list(range(10))
    assert len(next(epochs(lambda indices: (indices,), 3, 5)(torch.Generator()))[0]) == 3


def test_the_parts_share_no_sample():
    parts = split({"x": torch.randn(50, 2)}, 0.2, seed=0)
    assert [len(part) for part in parts] == [40, 5, 5]
    assert sorted(torch.cat(list(parts)).tolist()) == list(range(50))
    assert not split({"x": torch.randn(50, 2)}, 0.2, seed=1).held_out.equal(parts.held_out)


@pytest.mark.parametrize(
    ("samples", "held_out", "message"),
    [
        ({"x": torch.zeros(50, 2), "y": torch.zeros(49, 2)}, 0.2, r"x \(50, 2\) and y \(49, 2\)"),
        ({"x": torch.zeros(50)}, 0.2, "one vector for each sample"),
        ({"x": torch.zeros(50, 0)}, 0.2, "one vector for each sample"),
        ({"x": torch.zeros(19, 2)}, 0.2, "19 samples do not split"),
        ({"x": torch.zeros(50, 2)}, 1.0, "held_out=1.0"),
        ({"x": torch.full((50, 2), math.nan)}, 0.2, "x holds NaN"),
        ({"x": torch.full((50, 2), math.inf)}, 0.2, "x holds NaN or infinite"),
    ],
)
def test_samples_that_do_not_serve_are_refused(samples, held_out, message):
    with pytest.raises(UsageError, match=message):
        split(samples, held_out, seed=0)
