import importlib.util
import json
from pathlib import Path

import pytest
import torch

_spec = importlib.util.spec_from_file_location("spirals", Path(__file__).parents[2] / "examples" / "spirals.py")
example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example)


def test_the_spirals_are_in_their_box_and_the_same_but_for_half_a_turn():
    points, label = example.spirals(400, torch.Generator().manual_seed(0))
    assert points.abs().max() <= 2
    assert label.bincount().tolist() == [200, 200]
    radius, angle = points.norm(dim=1), torch.atan2(points[:, 1], points[:, 0])
    way = (radius / 2 - example.START) / (1 - example.START)
    expected = torch.polar(torch.ones(400), way * example.TURNS * 2 * torch.pi + torch.pi * label)
    torch.testing.assert_close(torch.polar(torch.ones(400), angle), expected, rtol=0, atol=1e-4)


def test_the_encoders_are_independent():
    encoders = example.Encoders(3, torch.Generator().manual_seed(0))
    points = torch.randn(3, 5, 2)
    whole = encoders(points)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(3, 5))
    with torch.no_grad():
        encoders.weights[0][1] += 1.0
    changed = encoders(points)
    assert torch.equal(changed[[0, 2]], whole[[0, 2]])
    assert not torch.allclose(changed[1], whole[1])


def test_information_falls_with_the_noise_and_files_are_written(tmp_path, monkeypatch, capsys):
    for name, value in (("POINTS", 200), ("HELD_OUT", 100), ("HIDDEN", 16), ("NEGATIVES", 32)):
        monkeypatch.setattr(example, name, value)
    results = example.run((0.0, 1.0, 5.0), seeds=2, steps=150, out=tmp_path)
    nats = torch.tensor(results["infonce"]).mean(dim=1)
    assert nats[0] > nats[1] > nats[2]
    assert torch.tensor(results["accuracy"]).shape == (3, 2)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "spirals.png").stat().st_size > 20_000
    assert "InfoNCE (nats)" in capsys.readouterr().out


def test_an_encoder_that_knows_the_spiral_is_told_apart_and_a_blind_one_is_not(monkeypatch):
    class Known:
        weights = [torch.zeros(2, 1, 1)]

        def __call__(self, points):
            radius, angle = points.norm(dim=-1), torch.atan2(points[..., 1], points[..., 0])
            way = (radius / 2 - example.START) / (1 - example.START)
            turned = torch.cos(angle - way * example.TURNS * 2 * torch.pi)  # 1 on the first spiral, -1 on the second
            knowing = torch.stack([turned, torch.zeros_like(turned)], dim=-1)
            knowing[1] = 1.0  # the second encoder says the same of all
            return knowing

    assert example.accuracies(Known()) == pytest.approx([1.0, 0.5], abs=0.02)
