"""The numbers are SplitMix64's, belong to an image alone, and look random in every direction."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from hf_infomax.data.augmentations import Draws

COUNT = 10_000
SIGNIFICANT = 0.001
WORD = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(x):
    """SplitMix64's finaliser, on Python's integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def splitmix64(state, count):
    return [mix((state + n * GAMMA) & WORD) for n in range(1, count + 1)]


def key(state, number):
    return mix((state + mix((number * GAMMA + GAMMA) & WORD)) & WORD)


def signed(word):
    return word - 2**64 if word >= 2**63 else word


def draws(seed=0, epoch=0, index=None):
    return Draws.of(seed, epoch, torch.arange(COUNT) if index is None else torch.as_tensor(index))


def unlike(first, second, bound=4.5):
    """No correlation between two samples of independent numbers: |r| below `bound` standard deviations."""
    first, second = [torch.as_tensor(one).double().flatten().numpy() for one in (first, second)]
    return abs(np.corrcoef(first, second)[0, 1]) < bound / len(first) ** 0.5


def test_the_oracle_is_splitmix64():
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # published


@pytest.mark.parametrize("state", [0, 1, 1234567, 2**62, 2**63 + 5, WORD])
def test_numbers_are_splitmix64s(state):
    expected = torch.tensor([(word >> 40) / 2**24 for word in splitmix64(state, 70)])
    ours = Draws(torch.tensor([signed(state)]))
    assert torch.equal(torch.cat([ours.uniform(40), ours.uniform(30)], 1)[0], expected)


@pytest.mark.parametrize(("seed", "epoch", "index"), [(0, 0, 0), (7, 3, 2**40), (2**31, 999, 1)])
def test_keys_are_hashes_of_seed_epoch_and_index(seed, epoch, index):
    made = draws(seed, epoch, [index])
    expected = key(key(key(0, seed), epoch), index)
    assert made.keys.tolist() == [signed(expected)]
    assert made.fork(2).keys.tolist() == [signed(key(~expected & WORD, 2))]


def test_indices_up_to_two_to_the_forty_have_numbers_of_their_own():
    index = torch.cat([torch.arange(1_000), 2**31 + torch.arange(-500, 500), 2**40 - torch.arange(1_000)])
    made = draws(index=index)
    assert len(made.keys.unique()) == len(index)
    assert stats.kstest(made.uniform(4).flatten(), "uniform").pvalue > SIGNIFICANT


@pytest.mark.parametrize("blocks", [(3, 5), (8,), (1,) * 8, (5, 3)])
def test_the_size_of_a_block_changes_nothing(blocks):
    ours, whole = draws(index=range(50)), draws(index=range(50)).uniform(8)
    assert torch.equal(torch.cat([ours.uniform(block) for block in blocks], 1), whole)


def test_blocks_beyond_what_is_made_ahead():
    ours, whole = draws(index=range(5)), draws(index=range(5)).uniform(200)
    assert torch.equal(torch.cat([ours.uniform(block) for block in (30, 7, 100, 1, 62)], 1), whole)


def test_an_images_numbers_do_not_depend_on_the_batch():
    whole = draws().uniform(6)
    order = torch.randperm(COUNT)
    assert torch.equal(draws(index=order).uniform(6), whole[order])
    assert torch.equal(torch.cat([draws(index=part).uniform(6) for part in torch.arange(COUNT).split(77)]), whole)


@pytest.mark.parametrize("index", [slice(2, 5), torch.tensor([4, 4, 0])])
def test_a_selection_goes_on_where_its_images_are(index):
    parent = draws(index=range(6))
    before = parent.uniform(3)
    chosen = parent.select(index)
    after = parent.uniform(50)
    assert torch.equal(chosen.uniform(50), after[index])
    assert not torch.equal(before, after[:, :3])


def test_forks_and_pieces_are_reproducible_and_all_differ():
    parent = draws(index=range(500))
    families = [parent.fork(1).keys, parent.fork(2).keys, parent.fork(1).fork(2).keys, parent.fork(2).fork(1).keys]
    assert torch.cat([parent.keys, *families]).unique().numel() == 5 * 500
    assert parent.split(9).keys.unique().numel() == 9 * 500
    parent.uniform(40)  # what was drawn already has no bearing
    assert torch.equal(parent.fork(1).keys, families[0])
    alone = draws(index=[123]).split(9).uniform(4)
    assert torch.equal(parent.split(9).uniform(4)[123 * 9 : 124 * 9], alone)


def test_what_should_be_independent_is():
    parent = draws()
    numbers = {
        "own": parent.uniform(2),
        "fork 0": parent.fork(0).uniform(2),
        "fork 1": parent.fork(1).uniform(2),
        "piece 1": parent.split(3).uniform(2)[1::3],
        "next image": draws(index=torch.arange(COUNT) + 1).uniform(2),
        "far image": draws(index=torch.arange(COUNT) + 2**32).uniform(2),
        "next epoch": draws(epoch=1).uniform(2),
        "next seed": draws(seed=1).uniform(2),
        "seed for epoch": draws(seed=1, epoch=1).uniform(2),
    }
    columns = {f"{name}, {n}": values[:, n] for name, values in numbers.items() for n in range(2)}
    for (first, a), (second, b) in itertools.combinations(columns.items(), 2):
        assert unlike(a, b), (first, second)
        cells = torch.bincount((a * 5).long() * 5 + (b * 5).long(), minlength=25)
        assert stats.chisquare(cells).pvalue > SIGNIFICANT / len(columns), (first, second)


def test_later_numbers_do_not_follow_from_earlier_ones():
    numbers = draws(index=range(3)).uniform(COUNT)
    for lag in (1, 2, 31, 32, 33):
        assert all(unlike(row[lag:], row[:-lag]) for row in numbers), lag
    assert unlike(numbers[0], numbers[1])


def test_uniform():
    numbers = draws().uniform(2, 3)
    assert numbers.shape == (COUNT, 2, 3)
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten(), "uniform").pvalue > SIGNIFICANT
    assert draws().uniform().shape == (COUNT,)
    assert torch.equal(draws().uniform(3, low=-2.0, high=6.0), draws().uniform(3) * 8 - 2)


@pytest.mark.parametrize("high", [1, 2, 7, 24])
def test_integers(high):
    numbers = draws().integers(high, 2)
    assert numbers.dtype == torch.int64
    counts = torch.bincount(numbers.flatten(), minlength=high)
    assert len(counts) == high
    assert high == 1 or stats.chisquare(counts).pvalue > SIGNIFICANT


def test_integers_have_limits_of_their_own():
    high = torch.tensor([[1, 5], [3, 2**23], [2, 9]]).repeat(1_000, 1)
    numbers = draws(index=range(len(high))).integers(high, 2)
    assert numbers.min() >= 0
    assert (numbers < high).all()
    assert stats.kstest(numbers[1::3, 1] / 2**23, "uniform").pvalue > SIGNIFICANT
    assert set(numbers[2::3, 1].tolist()) == set(range(9))


def test_normal():
    numbers = draws().normal(2)
    assert numbers.isfinite().all()
    assert stats.kstest(numbers.flatten(), "norm").pvalue > SIGNIFICANT
    assert abs(numbers.mean()) < 4 / (2 * COUNT) ** 0.5
    assert unlike(numbers[:, 0], numbers[:, 1])
    assert unlike(numbers[:, 0] ** 2, numbers[:, 1] ** 2)


@pytest.mark.parametrize("probability", [0.0, 0.03, 0.5, 0.8, 1.0])
def test_happens(probability):
    times = int(draws().happens(probability).sum())
    assert stats.binomtest(times, COUNT, probability).pvalue > SIGNIFICANT


@pytest.mark.parametrize("length", [1, 2, 4])
def test_permutations_are_uniform_and_independent_of_the_neighbours(length):
    orders = draws().permutation(length)
    assert torch.equal(orders.sort(1).values, torch.arange(length).expand(COUNT, length))
    names = list(itertools.permutations(range(length)))
    drawn = np.array([names.index(tuple(order)) for order in orders.tolist()])
    counts = np.bincount(drawn, minlength=len(names))
    assert len(names) == 1 or stats.chisquare(counts).pvalue > SIGNIFICANT
    if length == 2:
        pairs = np.bincount(drawn[:-1:2] * 2 + drawn[1::2], minlength=4)
        assert stats.chisquare(pairs).pvalue > SIGNIFICANT


def test_without_an_index_numbers_follow_torchs_generator():
    first = Draws.anew(100, "cpu")
    assert len(first) == 100
    assert first.keys.unique().numel() == 100
    assert not torch.equal(first.keys, Draws.anew(100, "cpu").keys)
    torch.manual_seed(0)
    assert torch.equal(Draws.anew(100, "cpu").keys, first.keys)
