import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

_spec = importlib.util.spec_from_file_location(
    "vince_gaussian", Path(__file__).parents[2] / "examples" / "vince_gaussian.py"
)
vince_gaussian = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vince_gaussian)

INFORMATION = 0.0204110


def quadrature():
    """Nodes and weights of the standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return torch.tensor(nodes), torch.tensor(weights / weights.sum())


@pytest.fixture
def anchors():
    """x, y1 of the joint distribution, and the numbers that draw the negatives."""
    x, noise = torch.randn(2, 4000, dtype=torch.float64)
    return x, 0.2 * x + math.sqrt(0.96) * noise, torch.rand(4000, vince_gaussian.NEGATIVES, dtype=torch.float64)


def test_the_mutual_information_is_that_of_the_paper():
    assert vince_gaussian.true_information() == pytest.approx(INFORMATION, abs=1e-6)


def test_samples_have_the_covariance_of_the_paper():
    points = torch.stack(vince_gaussian.sample(2, 50_000, torch.Generator().manual_seed(0)))
    assert points.shape == (2, 2, 50_000)
    torch.testing.assert_close(points[:, 0].cov(), torch.tensor([[2.0, 0.4], [0.4, 2.0]]), atol=0.05, rtol=0)


def test_the_optimal_critic_is_the_log_density_ratio():
    nodes, weights = quadrature()
    for x in (-2.0, 0.0, 0.7):
        scores = vince_gaussian.optimal_critic(torch.tensor(x, dtype=torch.float64), nodes)
        assert (weights * scores.exp()).sum().item() == pytest.approx(1, abs=1e-9)
    partners = 0.2 * nodes + math.sqrt(0.96) * nodes.unsqueeze(-1)  # (noise, x)
    scores = vince_gaussian.optimal_critic(nodes, partners)
    assert (weights * weights.unsqueeze(-1) * scores).sum().item() == pytest.approx(INFORMATION, abs=1e-6)


@pytest.mark.parametrize("share", [0.9, 0.25, 0.01])
def test_a_level_set_has_its_share_of_the_data_and_the_highest_scores(share):
    centre = torch.tensor([-1.5, 0.0, 0.4], dtype=torch.float64).unsqueeze(-1)
    lower, upper = vince_gaussian.level_set(centre, share)
    probability = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    torch.testing.assert_close(probability, torch.full_like(probability, share))
    y = torch.linspace(-4, 4, 401, dtype=torch.float64)
    scores, inside = vince_gaussian.optimal_critic(centre, y), (lower <= y) & (y <= upper)
    for row, chosen in zip(scores, inside, strict=True):
        assert 0 < chosen.sum() < len(y)
        assert row[chosen].min() > row[~chosen].max()


def test_infinitely_many_negatives_score_as_many_do(anchors):
    x, y1, _ = (part[:50] for part in anchors)
    uniform = (torch.arange(20_000, dtype=torch.float64).unsqueeze(0) + 0.5) / 20_000
    for centre in (x, y1):
        vince, limit, _, _ = vince_gaussian.optimal(x, y1, centre, 0.1, uniform)
        many = vince.double() - vince_gaussian.optimal_critic(x, y1) + INFORMATION
        torch.testing.assert_close(many, limit, atol=2e-4, rtol=0)


def test_around_x_the_condition_brings_the_inequality_and_vince_stays_below_infonce(anchors):
    x, y1, uniform = anchors
    infonce = vince_gaussian.optimal(x, y1, x, 1.0, uniform)[0].mean()
    assert infonce <= INFORMATION + 3 * 0.2 / math.sqrt(len(x))  # f*'s standard deviation is 0.2
    previous = infonce
    for share in vince_gaussian.ALL_SHARES[1:]:
        vince, _, holds, raised = vince_gaussian.optimal(x, y1, x, share, uniform)
        assert raised[holds].all()
        assert vince.mean() < previous  # the smaller the share, the looser
        previous = vince.mean()
    assert holds.all()


def test_around_y1_the_condition_does_not_bring_a_bound(anchors):
    x, y1, uniform = anchors
    infonce = vince_gaussian.optimal(x, y1, y1, 1.0, uniform)[0].mean()
    vince, limit, holds, raised = vince_gaussian.optimal(x, y1, y1, 0.01, uniform)
    assert holds.all()
    assert not raised.all()
    assert vince.mean() > infonce + 0.01
    assert limit.mean() > INFORMATION + 0.01


def test_the_nearest_are_those_of_a_loop_and_never_the_positive():
    bank, own = torch.randn(2, 40, 3), torch.randint(40, (2, 5))
    for share in (0.1, 0.5, 0.9, 1.0):
        found = vince_gaussian.nearest(bank, own, share)
        for replica in range(2):
            for anchor, indices in zip(own[replica].tolist(), found[replica].tolist(), strict=True):
                distances = [(bank[replica, i] - bank[replica, anchor]).norm().item() for i in range(40)]
                ranking = sorted((i for i in range(40) if i != anchor), key=distances.__getitem__)
                assert sorted(indices) == sorted(ranking[: int(share * 40)])


def test_negatives_are_drawn_from_the_chosen_and_from_all_of_them():
    chosen = torch.tensor([[[3, 7, 9], [1, 4, 8]]])
    drawn = vince_gaussian.draw(chosen, torch.Generator().manual_seed(0))
    assert drawn.shape == (1, 2, vince_gaussian.NEGATIVES)
    assert [set(row) for row in drawn[0].tolist()] == [{3, 7, 9}, {1, 4, 8}]


def test_the_estimate_scores_the_rows_of_each_replica():
    codes, bank = torch.randn(2, 3, 4), torch.randn(2, 9, 4)
    own, negatives = torch.randint(9, (2, 3)), torch.randint(9, (2, 3, 5))
    estimates = vince_gaussian.estimate(codes, bank, own, negatives)
    for r in range(2):
        for b in range(3):
            positive = codes[r, b] @ bank[r, own[r, b]]
            others = torch.stack([codes[r, b] @ bank[r, i] for i in negatives[r, b]])
            expected = positive - (torch.cat([positive[None], others]).exp().mean()).log()
            assert estimates[r, b].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_condition_compares_the_least_chosen_score_with_the_mean():
    scores = torch.tensor(
        [[[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [5.0, 5.0, 5.0]]]
    )  # log of the mean of e^f: 1.31, 1.31, 5
    chosen = torch.tensor([[[2], [1], [0]]])
    assert vince_gaussian.above_mean(scores, chosen).tolist() == [[1, 0, 0]]


def test_each_replica_is_a_plain_mlp_and_all_shares_begin_alike():
    encoders, seeds = vince_gaussian.Encoders(2, torch.Generator().manual_seed(0)), 2
    numbers = torch.randn(seeds, 6).repeat(len(vince_gaussian.SHARES), 1)
    codes = encoders(numbers)
    hidden = numbers[1].unsqueeze(-1)
    for layer, (weight, bias) in enumerate(zip(encoders.weights, encoders.biases, strict=True)):
        linear = nn.Linear(*weight.shape[1:])
        assert weight.abs().max() <= 1 / math.sqrt(linear.in_features)
        with torch.no_grad():
            linear.weight.copy_(weight[1].T)
            linear.bias.copy_(bias[1, 0])
        hidden = linear(hidden if layer == 0 else hidden.relu())
    assert layer == 4
    torch.testing.assert_close(codes[1], hidden)
    torch.testing.assert_close(codes[seeds + 1], hidden)  # the next share's
    assert not torch.allclose(codes[0], codes[1])


def test_training_learns_what_x_tells_of_y():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 192, generator=generator)
    encoders = vince_gaussian.train(x, x, 15, generator)
    infonce = vince_gaussian.measure(encoders, x, x, generator)["VINCE"][0]
    assert infonce.min() > 0.5


def test_main_writes_results_table_and_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vince_gaussian, "POINTS", 120)
    monkeypatch.setattr(vince_gaussian, "POOLS", 2)
    monkeypatch.setattr(vince_gaussian, "ANCHORS", 2**8)
    monkeypatch.setattr(vince_gaussian, "NETS", 2)
    out = tmp_path / "card"
    assert vince_gaussian.main(["--seeds", "1", "--epochs", "1", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"results.json", "table.md", "vince.png"}
    results = json.loads((out / "results.json").read_text())
    assert results["truth"] == pytest.approx(INFORMATION, abs=1e-6)
    assert [row["share"] for row in results["trained"]] == ["InfoNCE", "90%", "75%", "50%", "25%", "10%", "5%"]
    assert results["trained"][1]["Table 1"] == {"mean": 0.01241, "std": 3e-4}
    for rows in (results["trained"], results["S around x"], results["S around y1"]):
        cells = [cell for row in rows for cell in row.values() if isinstance(cell, dict)]
        assert all(math.isfinite(cell[key]) for cell in cells for key in ("mean", "std"))
    table = (out / "table.md").read_text()
    assert sum(line.startswith("| InfoNCE |") for line in table.splitlines()) == 3
    assert table in capsys.readouterr().out
    assert (out / "vince.png").read_bytes().startswith(b"\x89PNG")
