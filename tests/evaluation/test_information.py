import math

import pytest
import torch

from hf_infomax import CMCConfig, CMCModel, DIMConfig, DIMModel, UsageError
from hf_infomax.evaluation import fit_temperature, paired_information, view_information
from hf_infomax.evaluation import information as module


def test_it_equals_a_loop_over_both_directions(monkeypatch):
    monkeypatch.setattr(module, "_ANCHORS", 3)  # pieces, the last of them short
    x, y = torch.randn(7, 4), torch.randn(7, 4)
    total = 0.0
    for one, other in ((x, y), (y, x)):
        for i in range(7):
            h = [math.exp(torch.cosine_similarity(one[i], other[j], dim=0) / 0.3) for j in range(7)]
            total += math.log(h[i] / (sum(h) / 7))
    assert paired_information(x, y, 0.3) == pytest.approx(total / 14, abs=1e-5)


def test_the_ceiling_is_the_logarithm_of_the_number_and_strangers_share_nothing():
    x = torch.randn(64, 256)
    assert paired_information(x, x, 0.01) == pytest.approx(math.log(64), abs=1e-3)
    assert abs(paired_information(x, torch.randn(64, 256), 1.0)) < 0.05


def test_it_stays_below_the_information_of_a_gaussian_channel():
    torch.manual_seed(0)
    signal = torch.randn(2000, 8)
    x, y = signal + 0.5 * torch.randn(2000, 8), signal + 0.5 * torch.randn(2000, 8)
    correlation = 1 / 1.25
    true = -0.5 * 8 * math.log(1 - correlation**2)  # 4.1 nats
    found = paired_information(x[1000:], y[1000:], fit_temperature(x[:1000], y[:1000]))
    assert 0.5 * true < found < true


def test_the_temperature_is_the_best_of_those_given():
    x = torch.randn(50, 16)
    y = x + torch.randn(50, 16)
    values = {t: paired_information(x, y, t) for t in (0.02, 0.1, 0.5)}
    assert fit_temperature(x, y, tuple(values)) == max(values, key=values.get)


def test_every_two_views_are_compared():
    kwargs = {"channels": [8, 12, 16], "hidden_sizes": [24]}
    model = CMCModel(CMCConfig(views=["L", "a", "b"], backbone_kwargs=kwargs, representation_size=10))
    train, test = (torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8) for _ in range(2))
    found = view_information(model.train(), train, test, images=30, batch_size=16)
    assert list(found) == ["L;a", "L;b", "a;b"]
    assert all(value <= math.log(30) for value in found.values())
    assert model.training


def test_mistakes_are_one_sentence():
    with pytest.raises(UsageError, match=r"are no pairs: give two or more rows"):
        paired_information(torch.randn(4, 3), torch.randn(5, 3), 0.1)
    with pytest.raises(UsageError, match="needs a model of two views or more"):
        view_information(DIMModel(DIMConfig()), torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
