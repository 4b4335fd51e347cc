"""Rank, alignment, uniformity, dead units: closed forms, naive loops, and what a collapse looks like."""

import math

import pytest
import torch

from hf_infomax import DIMConfig, DIMModel, UsageError
from hf_infomax.evaluation.label_free import Health, alignment, dead_units, rankme, representation_health, uniformity


def test_rankme_counts_the_directions_that_are_used_alike():
    for used in (1, 3, 10):
        basis = torch.linalg.qr(torch.randn(20, used, generator=torch.Generator().manual_seed(0)))[0]  # (20, used)
        assert rankme(basis @ torch.eye(used, 30)) == pytest.approx(used, rel=1e-4)


def test_rankme_is_the_exponential_of_the_entropy_of_singular_values():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 4, 2, 1, 0.5, 0.1])
    values = torch.linalg.eigvalsh(x.double().T @ x.double()).clamp(min=0).sqrt()
    shares = [value / values.sum() for value in values.tolist()]
    assert rankme(x) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-4)
    assert rankme(7 * x) == pytest.approx(rankme(x), rel=1e-5)  # a scale changes nothing
    assert rankme(torch.zeros(5, 3)) == 1.0


def test_alignment_is_a_mean_over_pairs():
    x, y = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = sum(float((a / a.norm() - b / b.norm()).norm()) ** 2 for a, b in zip(x, y, strict=True)) / 7
    assert alignment(x, y) == pytest.approx(expected, rel=1e-5)
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-6)


def test_uniformity_is_a_mean_over_pairs_of_different_images():
    x = torch.randn(1100, 3, generator=torch.Generator().manual_seed(0))  # more than one piece of the sum
    unit = torch.nn.functional.normalize(x).double()
    kernel = (-2 * torch.cdist(unit, unit).square()).exp()
    expected = math.log((kernel.sum() - 1100) / (1100 * 1099))
    assert uniformity(x) == pytest.approx(expected, abs=1e-4)


def test_even_vectors_are_more_uniform_than_crowded_ones():
    even = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    assert uniformity(even) < uniformity(even + 3) < uniformity(even + 30) <= 0


def test_dead_units_say_the_same_of_every_image():
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    x[:, 2], x[:, 5] = 0, 1e4
    assert dead_units(x) == 0.25


@pytest.mark.parametrize("measure", [rankme, uniformity, dead_units, lambda x: alignment(x, x)])
def test_features_that_are_none(measure):
    with pytest.raises(UsageError, match="NaN or infinite"):
        measure(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]))
    with pytest.raises(UsageError, match=r"shape \(4,\): give \(N, F\)"):
        measure(torch.ones(4))


def test_vectors_of_different_images_are_no_pairs():
    with pytest.raises(UsageError, match="are no pairs"):
        alignment(torch.ones(3, 2), torch.ones(4, 2))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DIMModel(DIMConfig(backbone_kwargs={"channels": [8, 12, 16], "hidden_sizes": [24]}, representation_size=10))


def test_the_health_of_a_layer(model):
    pixels = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    health = representation_health(model, pixels, progress=False)
    y = model.eval().features(pixels / 255)
    assert (health.layer, health.units) == ("y", 10)
    assert health.rankme == pytest.approx(rankme(y), rel=1e-4)
    assert health.uniformity == pytest.approx(uniformity(y), abs=1e-4)
    assert 0 < health.alignment < 4
    assert representation_health(model, pixels, progress=False) == health
    assert representation_health(model, pixels, features=y, progress=False).rankme == pytest.approx(
        health.rankme, rel=1e-4
    )
    assert representation_health(model, pixels, "fc", progress=False).units == 24


def test_a_collapsed_encoder_is_told(model):
    with torch.no_grad():
        model.encoders["RGB"].y.weight.zero_()
    health = representation_health(model, torch.rand(20, 3, 32, 32), progress=False)
    assert (health.dead_units, health.alignment) == (1.0, pytest.approx(0, abs=1e-6))
    collapsed, dead = health.warnings
    assert collapsed.startswith("layer y has collapsed: its RankMe is 1.00")
    assert dead.startswith("100% of the units of layer y are dead")


def test_a_sound_one_is_not_warned_of():
    assert Health("y", units=64, rankme=30.0, dead_units=0.1, uniformity=-3.0, alignment=0.3).warnings == ()
