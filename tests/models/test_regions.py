"""Regions: which samples are candidates, against a sort of the bank's rows; and how an annealed region moves."""

import math

import pytest
import torch
from scipy import stats

from hf_infomax.models import regions
from hf_infomax.models.bank import MemoryBank
from hf_infomax.models.critics import Cosine
from hf_infomax.models.errors import UsageError
from hf_infomax.models.negatives import FromBank
from hf_infomax.models.neighbors import Nearest
from hf_infomax.models.regions import ANNEALINGS, Ball, Marginal

N, D = 40, 6
INDEX = torch.tensor([3, 17, 0, 39, 25])


@pytest.fixture
def bank():
    return MemoryBank(N, D)


@pytest.fixture(params=["among", "in_shards"])
def search(request, monkeypatch):
    """Both ways to search: rows that every process looks up, and each process its own."""
    monkeypatch.setattr(regions, "_SEARCHED_PER_FOUND", math.inf if request.param == "among" else 0)
    return request.param


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ask(region, bank, index=INDEX, seed=0, **more):
    return region({"x": bank}, index, generator(seed), **more)["x"]


def ranks(bank, own):
    """Sample -> how many others are nearer to the row of `own`."""
    cosines = {j: (bank.rows[own] @ bank.rows[j]).item() for j in range(N) if j != own}
    return {j: rank for rank, j in enumerate(sorted(cosines, key=cosines.get, reverse=True))}


def test_the_marginal_is_all_other_samples(bank):
    candidates = ask(Marginal(2_000), bank)
    assert candidates.index.shape == (5, 2_000)
    assert (candidates.close, candidates.marginal) == (None, None)
    for own, row in zip(INDEX.tolist(), candidates.index, strict=True):
        assert set(row.tolist()) == set(range(N)) - {own}
        assert stats.chisquare(row.bincount(minlength=N)[torch.arange(N) != own]).pvalue > 1e-3
    shared = ask(Marginal(2_000, shared=True), bank).index
    assert shared.shape == (2_000,)
    assert stats.chisquare(shared.bincount(minlength=N)).pvalue > 1e-3


@pytest.mark.parametrize("num_negatives", [None, 7])
def test_a_ball_is_the_nearest_to_the_own_row(bank, search, num_negatives):
    candidates = ask(Ball(7, num_negatives), bank)
    for own, row in zip(INDEX.tolist(), candidates.index.tolist(), strict=True):
        nearest = ranks(bank, own)
        assert sorted(nearest[j] for j in row) == list(range(7))
    assert (candidates.rows is None) == (search == "in_shards")


@pytest.mark.parametrize(("share", "size"), [(0.5, 20), (0.1, 4), (0.025, 1), (1, 1), (39, 39)])
def test_sizes_below_one_are_shares_of_the_others(bank, share, size):
    ball = Ball(share)
    ball.require(N)
    assert ball.samples(N) == ball.count(N) == size
    candidates = ask(ball, bank)
    for own, row in zip(INDEX.tolist(), candidates.index.tolist(), strict=True):
        assert max(ranks(bank, own)[j] for j in row) == size - 1


def test_a_ball_has_at_most_4096_negatives_unless_it_is_asked_for_more():
    assert Ball(20_000).count(50_000) == 4096
    assert Ball(0.5).count(50_000) == 4096
    assert (Ball(1.0).samples(40), Ball(1).samples(40)) == (39, 1)  # a share of all others, and a number of them
    assert Ball(20_000, 10_000).count(50_000) == 10_000
    assert Ball(300).count(50_000) == 300


def test_every_view_has_the_nearest_of_its_own_bank():
    banks = {"L": MemoryBank(N, D), "ab": MemoryBank(N, D, seed=1)}
    for view, candidates in Ball(5)(banks, INDEX, generator()).items():
        for own, row in zip(INDEX.tolist(), candidates.index.tolist(), strict=True):
            assert sorted(ranks(banks[view], own)[j] for j in row) == list(range(5))


def test_a_sample_of_a_ball_is_distinct_others_from_about_the_ball(search):
    samples, size, count = 1_000, 100, 25
    bank, index = MemoryBank(samples, 16), torch.arange(0, samples, 50)
    cosines = bank.rows @ bank.rows.T
    cosines.fill_diagonal_(math.inf)
    rank = cosines.argsort(dim=1, descending=True).argsort(dim=1) - 1  # (N, N): -1 is the sample itself
    found, drawn = [], []
    for seed in range(12):
        candidates = ask(Ball(size, count), bank, index, seed).index
        assert candidates.shape == (20, count)
        for own, row in zip(index.tolist(), candidates.tolist(), strict=True):
            assert len(set(row)) == count
            assert own not in row
        found.append(rank[index].gather(1, candidates))
        drawn.append(candidates)
    found = torch.stack(found).float()
    assert not torch.equal(drawn[0], drawn[1])
    # The last of a step's is about the last of the ball, and all of the ball is drawn from.
    assert found.amax(dim=2).mean().item() == pytest.approx(size, rel=0.15)
    assert (found < 1.3 * size).float().mean() > 0.95
    assert found.mean().item() == pytest.approx(size / 2, rel=0.15)
    quarters = [((found >= low) & (found < low + size / 4)).float().mean().item() for low in (0, 25, 50)]
    assert quarters == pytest.approx([0.25] * 3, abs=0.04)


@pytest.mark.parametrize(
    ("name", "half", "quarter", "late"),
    [("linear", 0.5, 0.25, 0.9), ("cosine", 0.5, 0.1464, 0.9755), ("step", 0.5, 0.25, 0.75)],
)
def test_an_annealed_ball_falls_from_all_data_to_its_size(name, half, quarter, late):
    ball = Ball(10, 5, anneal=name, anneal_epochs=20)
    assert [ball.progress(epochs) for epochs in (-3, 0, 20, 500)] == [0, 0, 1, 1]
    assert [ball.progress(epochs) for epochs in (5, 10, 18)] == pytest.approx([quarter, half, late], abs=1e-4)
    steps = [ball.samples(101, ball.progress(epochs)) for epochs in range(21)]
    assert (steps[0], steps[10], steps[20]) == (100, 55, 10)
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == (5 if name == "step" else 21)
    assert set(ANNEALINGS) == {"linear", "cosine", "step"}
    assert Ball(10).progress(0) == 1.0


def test_an_annealed_ball_closes_in(bank):
    ball = Ball(5, 5, anneal="linear", anneal_epochs=10)
    spread = []
    for epochs in (0, 5, 10):
        drawn = [ask(ball, bank, seed=seed, epochs=epochs).index for seed in range(40)]
        of = [ranks(bank, own) for own in INDEX.tolist()]
        spread.append(
            sum(of[i][j] for rows in drawn for i, row in enumerate(rows.tolist()) for j in row)
            / (40 * INDEX.numel() * 5)
        )
    # The mean rank of a draw from all 39, from 22, and that of the 5 nearest.
    assert spread == pytest.approx([19, 10.5, 2], abs=2.5)
    assert spread[2] == 2


@pytest.mark.parametrize("name", ANNEALINGS)
def test_an_annealed_ball_begins_as_the_marginal(bank, name):
    ball = Ball(10, 10, anneal=name, anneal_epochs=10)
    counts = torch.zeros(N)
    for seed in range(400):
        own = torch.randint(N, (1,))
        drawn = ask(ball, bank, own, seed).index[0]
        assert len(set(drawn.tolist()) - set(own.tolist())) == 10
        counts += drawn.bincount(minlength=N)
    assert stats.chisquare(counts).pvalue > 1e-3  # each draw is without replacement, which only steadies the counts


def test_near_and_far_samples_come_equally_often_at_the_beginning(bank):
    """For each image on its own: no place of a pool is spent on the farthest because the image is not in it."""
    ball, of = Ball(8, 8, anneal="linear", anneal_epochs=10), ranks(bank, 3)
    counts = torch.zeros(N - 1)
    for seed in range(600):
        counts[[of[j] for j in ask(ball, bank, torch.tensor([3]), seed).index[0].tolist()]] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_close_share_grows(bank):
    close = Nearest(6)
    close.refresh(bank, 0)
    ball = Ball(12, 12, anneal="linear", anneal_epochs=10)
    for epochs, share in ((0, 0), (5, 3), (10, 6)):
        candidates = ask(ball, bank, epochs=epochs, close={"x": close})
        for own, row, marked in zip(INDEX.tolist(), candidates.index.tolist(), candidates.close.tolist(), strict=True):
            of = ranks(bank, own)
            assert marked == [of[j] < share for j in row]
    assert ask(ball, bank).close is None


def test_both_searches_name_the_same_candidates_and_give_the_same_scores(bank, monkeypatch):
    close = Nearest(4)
    close.refresh(bank, 0)
    y, critic = torch.randn(5, D), Cosine(0.2)
    for size, count in ((10, None), (10, 10), (20, 5), (39, 3)):
        found = []
        for searched in (math.inf, 0):
            monkeypatch.setattr(regions, "_SEARCHED_PER_FOUND", searched)
            candidates = ask(Ball(size, count), bank, close={"x": close})
            queries = y.clone().requires_grad_()
            positive, negative = FromBank(bank, INDEX, candidates)(critic, None, queries)
            negative.squeeze(1).logsumexp(dim=1).sum().backward()
            order = candidates.index.argsort(dim=1)
            found.append(
                (
                    *(part.gather(1, order) for part in (candidates.index, candidates.close, negative.squeeze(1))),
                    positive,
                    queries.grad,
                    candidates.marginal,
                )
            )
        for among, in_shards in zip(*found, strict=True):
            torch.testing.assert_close(among, in_shards, rtol=1e-5, atol=1e-5)


def test_rows_that_are_not_valid_are_never_candidates(search):
    bank = MemoryBank(N, D)
    bank.invalidate()
    bank.update(torch.arange(0, N, 2), torch.randn(N // 2, D))  # 20 have a row: samples 3 and 39 of the batch have none
    own = torch.tensor([4, 3, 39, 20])
    for ball in (Ball(8), Ball(30), Ball(30, 12)):
        index = ask(ball, bank, own).index
        for i, row in zip(own.tolist(), index.tolist(), strict=True):
            real = [j for j in row if j != i]  # the own sample stands for none
            assert len(set(real)) == len(real)
            assert all(j % 2 == 0 for j in real)
    index, of = ask(Ball(8), bank, own[:1]).index[0].tolist(), ranks(bank, 4)
    assert set(index) == set(sorted((j for j in of if j % 2 == 0), key=of.get)[:8])
    candidates = ask(Ball(30), bank, own)
    _, negative = FromBank(bank, own, candidates)(Cosine(), None, torch.randn(4, D))
    assert negative.isfinite().sum(dim=-1).flatten().tolist() == [19, 20, 20, 19]  # all that have a row, without itself


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        (
            lambda: Ball(40),
            r"^ball_size=40 background neighbours cannot be found among 39 other samples: [^.]* 1 to 39",
        ),
        (lambda: Ball(0), r"^ball_size=0 background neighbours cannot be found among 39"),
        (lambda: Ball(0.001), r"^ball_size=0\.001 background neighbours cannot be found among 39"),
        (lambda: Ball(-3), r"^ball_size=-3 background neighbours cannot be found"),
        (lambda: Ball(8, 9), r"^num_negatives=9 cannot be drawn from a ball of 8 samples: .* larger ball_size\.$"),
        (lambda: Ball(0.2, 9), r"^num_negatives=9 cannot be drawn from a ball of 8 samples"),
        (lambda: Ball(8, 0), r"^num_negatives=0 cannot be drawn from a ball of 8 samples"),
        (lambda: Ball(8, anneal="linear"), r"^anneal='linear' needs anneal_epochs, [^.]* set it above 0\.$"),
        (lambda: Ball(8, anneal="cosine", anneal_epochs=-1), r"^anneal='cosine' needs anneal_epochs"),
        (lambda: Ball(8, anneal="fast"), r"^Unknown anneal 'fast': choose one of linear, cosine, step\.$"),
        (lambda: Marginal(40), r"^num_negatives=40 other samples cannot be drawn from 40: choose 1 to 39\.$"),
        (lambda: Marginal(0), r"^num_negatives=0 other samples cannot be drawn from 40"),
    ],
)
def test_mistakes_are_one_sentence(region, sentence):
    with pytest.raises(UsageError, match=sentence):
        region().require(N)
