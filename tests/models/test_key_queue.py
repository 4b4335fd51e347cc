from collections import deque

import pytest
import torch
from torch.nn import functional as F

from hf_infomax.models.errors import UsageError
from hf_infomax.models.key_queue import UNKNOWN, KeyQueue

SIZE, UNITS = 23, 4


def in_order(queue):
    """The keys and places from the oldest to the newest, by the pointer alone."""
    order = (queue.pointer - queue.filled + torch.arange(queue.filled)) % queue.size
    return queue.rows[order], queue.samples[order]


def fill(queue, batches=3, size=9, samples=100):
    for _ in range(batches):
        queue.enqueue(torch.randn(size, UNITS), torch.randint(samples, (size,)))
    return queue


def test_a_thousand_steps_are_those_of_a_list():
    queue, naive = KeyQueue(SIZE, UNITS), deque(maxlen=SIZE)
    for step in range(1000):
        size = 1 + step * 7 % 31  # none divides 23, some are larger
        keys, samples = 3 * torch.randn(size, UNITS), torch.randint(50, (size,))
        queue.enqueue(keys, samples)
        naive.extend(zip(F.normalize(keys, dim=1), samples.tolist(), strict=True))
        rows, places = in_order(queue)
        assert places.tolist() == [sample for _, sample in naive]
        assert rows.equal(torch.stack([key for key, _ in naive]))
        assert queue.pointer == (sum(1 + past * 7 % 31 for past in range(step + 1))) % SIZE


def test_a_queue_that_is_not_full_has_what_has_come():
    queue = KeyQueue(SIZE, UNITS)
    assert queue.scores(torch.randn(2, UNITS)).shape == (2, 0)
    keys = torch.randn(5, UNITS)
    queue.enqueue(keys)
    assert queue.samples[:5].tolist() == [UNKNOWN] * 5
    queries = torch.randn(2, UNITS)
    torch.testing.assert_close(queue.scores(queries), queries @ F.normalize(keys, dim=1).T)


def test_keys_of_the_own_image_are_no_negatives():
    queue = fill(KeyQueue(SIZE, UNITS), samples=6)
    queries, index = torch.randn(4, UNITS, requires_grad=True), torch.tensor([0, 3, 3, 99])
    scores = queue.scores(queries, index)
    own = queue.samples == index[:, None]
    assert own.any(dim=1).tolist() == [True, True, True, False]
    assert scores.isneginf().equal(own)
    plain = queries @ queue.rows.T
    assert scores[~own].equal(plain[~own])
    exponentials = scores.exp().sum()
    (gradient,) = torch.autograd.grad(exponentials, queries)
    expected = (plain.exp() * ~own).detach() @ queue.rows
    torch.testing.assert_close(gradient, expected)


def test_places_that_are_not_known_are_nobodys():
    queue = KeyQueue(SIZE, UNITS)
    queue.enqueue(torch.randn(5, UNITS))
    assert queue.scores(torch.randn(2, UNITS), torch.tensor([0, 1])).isfinite().all()


def test_scores_are_float32_under_autocast():
    queue = fill(KeyQueue(SIZE, UNITS))
    queries = torch.randn(3, UNITS)
    with torch.autocast("cpu", torch.bfloat16):
        assert queue.scores(queries).equal(queue.scores(queries.clone()))
        assert queue.scores(queries).dtype == torch.float32
    torch.testing.assert_close(queue.scores(queries), queries @ queue.rows.T)


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_it_goes_on_exactly(tmp_path, batches):
    queue = fill(KeyQueue(SIZE, UNITS), batches)
    queue.save(tmp_path / "queue.safetensors")
    resumed = KeyQueue(SIZE, UNITS)
    resumed.load(tmp_path / "queue.safetensors")
    for one in (queue, resumed):
        torch.manual_seed(1)
        fill(one, 4, 7)
    assert (resumed.pointer, resumed.filled) == (queue.pointer, queue.filled)
    assert resumed.rows.equal(queue.rows)
    assert resumed.samples.equal(queue.samples)


@pytest.mark.parametrize("batches", [1, 5])
@pytest.mark.parametrize("size", [7, 40])
def test_of_another_size_the_newest_keys_are_kept(tmp_path, size, batches):
    queue = fill(KeyQueue(SIZE, UNITS), batches)
    queue.save(tmp_path / "queue.safetensors")
    resumed = KeyQueue(size, UNITS)
    resumed.load(tmp_path / "queue.safetensors")
    kept = min(size, queue.filled)
    assert resumed.filled == kept
    assert in_order(resumed)[0].equal(in_order(queue)[0][-kept:])
    naive = deque(in_order(resumed)[1].tolist(), maxlen=size)
    resumed.enqueue(torch.randn(5, UNITS), torch.arange(5))
    naive.extend(range(5))
    assert in_order(resumed)[1].tolist() == list(naive)


def test_errors_name_the_way_out(tmp_path):
    with pytest.raises(UsageError, match="queue_size=0: a queue holds at least one key"):
        KeyQueue(0, UNITS)
    fill(KeyQueue(SIZE, UNITS)).save(tmp_path / "queue.safetensors")
    with pytest.raises(UsageError, match="keys of 4 units, and the model compares vectors of 5"):
        KeyQueue(SIZE, 5).load(tmp_path / "queue.safetensors")
