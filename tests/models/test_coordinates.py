"""Coordinates: the cross-entropies against a loop, what a guess pays, and that they can be learned."""

import math

import pytest
import torch
from torch.nn import functional as F

from hf_infomax.models.coordinates import CoordinatePrediction

SIZE = (3, 4)


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(5, 12, 6), torch.randn(5, 7)


def by_hand(predict, c, y, source=None):
    """The logits of one pair or triple, (rows + columns,), by the weights of the predictor in evaluation mode."""
    hidden = predict.embed_local.weight @ c + predict.embed_y.weight @ y
    if source is not None:
        hidden = hidden + predict.embed_source.weight @ source
    return predict.mlp(hidden.unsqueeze(0)).squeeze(0)


def test_the_absolute_task_is_the_mean_over_all_locations(features):
    local, y = features
    predict = CoordinatePrediction(6, 7, SIZE, units=(8, 9)).eval()
    total = 0.0
    for image in range(5):
        for row in range(3):
            for column in range(4):
                logits = by_hand(predict, local[image, row * 4 + column], y[image])
                total -= logits[:3].log_softmax(0)[row] + logits[3:].log_softmax(0)[column]
    assert predict(local, y).item() == pytest.approx(total.item() / 60, rel=1e-5)


def test_the_relative_task_asks_for_the_way_to_every_other_location(features, monkeypatch):
    local, y = features
    source = torch.tensor([[0], [5], [11], [3], [5]])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: source)
    predict = CoordinatePrediction(6, 7, SIZE, units=(8,), relative=True).eval()
    assert predict.classes == (5, 7)
    total = 0.0
    for image in range(5):
        start = source[image].item()
        for place in set(range(12)) - {start}:
            logits = by_hand(predict, local[image, place], y[image], local[image, start])
            down, right = place // 4 - start // 4, place % 4 - start % 4
            total -= logits[:5].log_softmax(0)[down + 2] + logits[5:].log_softmax(0)[right + 3]
    assert predict(local, y).item() == pytest.approx(total.item() / 55, rel=1e-5)


def test_a_blind_guess_pays_the_logarithms(features):
    predict = CoordinatePrediction(6, 7, SIZE)
    torch.nn.init.zeros_(predict.mlp[-1].weight)
    torch.nn.init.zeros_(predict.mlp[-1].bias)
    assert predict(*features).item() == pytest.approx(math.log(3) + math.log(4), rel=1e-5)


@pytest.mark.parametrize("relative", [False, True])
def test_what_the_features_say_is_learned(relative):
    torch.manual_seed(0)
    place = torch.arange(12)
    told = torch.cat([F.one_hot(place // 4, 3), F.one_hot(place % 4, 4)], dim=1).float()  # (L, 7)
    predict = CoordinatePrediction(7, 2, SIZE, units=(32, 32), relative=relative)
    optimizer = torch.optim.Adam(predict.parameters(), lr=1e-2)
    first = None
    for _ in range(150):
        loss = predict(told.expand(16, -1, -1), torch.randn(16, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or loss.item()
    assert loss.item() < 0.1 < first


def test_the_gradient_reaches_the_local_features_and_y(features):
    local, y = (values.requires_grad_() for values in features)
    for relative in (False, True):
        local.grad = y.grad = None
        CoordinatePrediction(6, 7, SIZE, relative=relative)(local, y).backward()
        assert local.grad.abs().amax(dim=2).gt(0).all()  # every location is asked for
        assert y.grad.abs().amax(dim=1).gt(0).all()
