"""Occlusion: one block hidden whole, one seen whole, the rest by chance."""

import pytest
import torch
from torch.nn import functional as F

from hf_infomax.data.augmentations import Draws, Occlusion
from hf_infomax.models.errors import UsageError

COUNT = 4000


def draws(batch, seed=0):
    return Draws.of(seed, epoch=0, sample_index=torch.arange(batch))


def hidden_by(block, height, width, count=COUNT):
    """(count, 1, H, W) float32: 1 where an image of ones has been painted over."""
    images = torch.ones(count, 3, height, width)
    return 1 - Occlusion(block, fill=0.0)(images, draws(count))[:, :1]


@pytest.mark.parametrize(("block", "height", "width"), [(10, 32, 32), (3, 6, 6), (4, 8, 13), (1, 2, 5), (10, 20, 64)])
def test_one_block_is_hidden_and_one_is_seen_whole(block, height, width):
    hidden = hidden_by(block, height, width)
    assert F.avg_pool2d(hidden, block, stride=1).amax((1, 2, 3)).min() == pytest.approx(1)
    assert F.avg_pool2d(1 - hidden, block, stride=1).amax((1, 2, 3)).min() == pytest.approx(1)


def test_what_is_hidden_is_one_rectangle_and_the_rest_stays_as_it_is():
    images = torch.rand(64, 3, 24, 32)
    made = Occlusion(block=6, fill=0.25)(images, draws(64))
    hidden = (made != images).any(1)
    assert (made.permute(0, 2, 3, 1)[hidden] == 0.25).all()
    for rows, columns, mask in zip(hidden.any(2), hidden.any(1), hidden, strict=True):
        assert torch.equal(mask, rows[:, None] & columns)
        assert all(line.diff(prepend=line.new_zeros(1)).sum() <= 2 for line in (rows, columns))  # each in one piece


def test_every_size_and_place_that_keeps_the_blocks_occurs_equally_often():
    """Along one axis, against all that the rule allows, counted one by one."""
    block, side = 3, 8
    hidden = hidden_by(block, side, side, count=40_000)[:, 0]
    rows, columns = hidden.amax(2), hidden.amax(1)  # (count, side)
    lengths = torch.stack([rows.sum(1), columns.sum(1)], 1).long()
    first = torch.stack([rows.argmax(1), columns.argmax(1)], 1)
    narrow = lengths[:, 0] > side - block  # only the columns can have left the room
    assert lengths.amin() == block
    assert lengths.amax() == side
    for length in range(block, side - block + 1):
        found = first[narrow & (lengths[:, 1] == length), 1]
        allowed = [p for p in range(side - length + 1) if p >= block or side - length - p >= block]
        assert sorted(set(found.tolist())) == allowed
        counts = found.bincount(minlength=side)[allowed] / len(found)
        assert counts.tolist() == pytest.approx([1 / len(allowed)] * len(allowed), abs=0.03)


def test_the_numbers_are_the_images_own():
    images = torch.rand(8, 3, 32, 32)
    whole = Occlusion()(images, draws(8))
    assert torch.equal(whole[5:], Occlusion()(images[5:], draws(8).select(slice(5, 8))))
    assert not torch.equal(whole, Occlusion()(images, draws(8, seed=1)))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"block": 0}, "block of an occlusion is 0"),
        ({"block": 2.5}, "block of an occlusion is 2.5"),
        ({"fill": 2}, "painted with 2"),
    ],
)
def test_settings_that_cannot_be(given, sentence):
    with pytest.raises(UsageError, match=sentence):
        Occlusion(**given)


def test_images_too_small_for_two_blocks():
    with pytest.raises(UsageError, match="no room for a hidden and a visible block of 10: choose a block of at most 8"):
        Occlusion()(torch.rand(2, 3, 32, 17))
