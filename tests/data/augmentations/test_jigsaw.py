from itertools import permutations

import pytest
import torch
from scipy import stats

from hf_infomax.data.augmentations import Draws, JigsawPatches, Sample
from hf_infomax.models.errors import UsageError


def numbered(batch, side):
    """Images whose values are all different: (B, 3, side, side) float32."""
    return torch.arange(batch * 3 * side * side, dtype=torch.float32).view(batch, 3, side, side)


def draws(batch):
    return Draws.of(seed=0, epoch=0, sample_index=torch.arange(batch))


@pytest.mark.parametrize(("grid", "cell", "patch"), [(3, 12, 9), (2, 5, 5), (1, 7, 1)])
def test_patches_are_slices_of_their_cells_in_order(grid, cell, patch):
    jigsaw = JigsawPatches(grid, cell, patch)
    images = numbered(4, jigsaw.size)
    patches = jigsaw(images, draws(4))
    assert patches.shape == (4 * jigsaw.pieces, 3, patch, patch)
    for piece, found in enumerate(patches):
        image, place = images[piece // jigsaw.pieces], piece % jigsaw.pieces
        # The first value names the corner: its place in the channel that it was numbered in.
        corner = int(found[0, 0, 0] - image[0, 0, 0])
        top, left = divmod(corner, jigsaw.size)
        assert (top // cell, left // cell) == divmod(place, grid)
        assert max(top % cell, left % cell) <= cell - patch
        assert torch.equal(found, image[:, top : top + patch, left : left + patch])


def test_every_offset_occurs_equally_often():
    jigsaw = JigsawPatches(grid=2, cell=5, patch=3)
    images = numbered(1, 10).expand(2_000, -1, -1, -1)
    corners = jigsaw(images, draws(2_000))[:, 0, 0, 0].long().view(2_000, 4)
    for piece in range(4):
        counts = corners[:, piece].bincount()
        counts = counts[counts > 0]
        assert len(counts) == 9
        assert counts.min() > 160  # 222 expected


@pytest.mark.parametrize("shuffled", [False, True])
def test_places_belong_to_the_image(shuffled):
    jigsaw, images = JigsawPatches(3, 12, 9, shuffled), torch.rand(6, 3, 36, 36)
    patches = jigsaw(images, draws(6)).unflatten(0, (6, 9))
    order = torch.tensor([4, 1, 5])
    chosen = jigsaw(images[order], Draws.of(seed=0, epoch=0, sample_index=order)).unflatten(0, (3, 9))
    assert torch.equal(chosen, patches[order])
    assert not torch.equal(jigsaw(images), jigsaw(images))


def test_shuffled_patches_are_the_same_in_another_order():
    plain, shuffled = JigsawPatches(3, 12, 9), JigsawPatches(3, 12, 9, shuffled=True)
    images = numbered(16, 36)
    patches = plain(images, draws(16)).view(16, 9, -1)
    found = shuffled(images, draws(16)).view(16, 9, -1)
    same = (found[:, :, None] == patches[:, None]).all(-1)  # (B, 9, 9): which patch stands at each place
    assert torch.equal(same.sum(1), torch.ones(16, 9, dtype=torch.int64))
    assert torch.equal(same.sum(2), torch.ones(16, 9, dtype=torch.int64))
    assert len(same.long().argmax(2).unique(dim=0)) == 16  # every image has an order of its own


def test_every_order_occurs_equally_often():
    jigsaw = JigsawPatches(grid=2, cell=1, patch=1, shuffled=True)
    images = torch.arange(4.0).view(1, 1, 2, 2).expand(12_000, 3, 2, 2)
    found = jigsaw(images, draws(12_000))[:, 0, 0, 0].long().view(12_000, 4)
    counts = [int((found == torch.tensor(order)).all(1).sum()) for order in permutations(range(4))]
    assert sum(counts) == 12_000
    assert stats.chisquare(counts).pvalue > 0.001


def test_encoding_shuffled_patches_is_shuffling_their_features():
    encoder = torch.nn.Conv2d(3, 4, 9)
    images = torch.rand(5, 3, 36, 36)
    plain, shuffled = JigsawPatches.scaled(32), JigsawPatches(3, 12, 9, shuffled=True)
    patches, mixed = plain(images, draws(5)), shuffled(images, draws(5))
    order = (mixed[:, None] == patches).flatten(2).all(2).long().argmax(1)
    torch.testing.assert_close(encoder(mixed), encoder(patches)[order])


@pytest.mark.parametrize("key", ["seed", "epoch"])
def test_the_order_follows_seed_and_epoch(key):
    jigsaw = JigsawPatches(grid=3, cell=1, patch=1, shuffled=True)
    images = torch.arange(9.0).view(1, 1, 3, 3).expand(32, 3, 3, 3)

    def order(**changed):
        return jigsaw(images, Draws.of(**{"seed": 0, "epoch": 0, "sample_index": torch.arange(32), **changed}))

    assert torch.equal(order(), order())
    assert not torch.equal(order(), order(**{key: 1}))


def test_any_type_of_pixel():
    images = (torch.rand(2, 3, 36, 36) * 255).to(torch.uint8)
    patches = JigsawPatches.scaled(32)(images, draws(2))
    assert patches.dtype == torch.uint8
    assert torch.equal(patches / 255, JigsawPatches.scaled(32)(images / 255, draws(2)))


@pytest.mark.parametrize(
    ("image_size", "size", "cell", "patch"), [(224, 255, 85, 64), (32, 36, 12, 9), (64, 72, 24, 18), (96, 108, 36, 27)]
)
def test_sizes_in_proportion(image_size, size, cell, patch):
    jigsaw = JigsawPatches.scaled(image_size)
    assert (jigsaw.size, jigsaw.cell, jigsaw.patch, jigsaw.pieces) == (size, cell, patch, 9)


def test_a_sample_of_images_alone():
    images = (torch.rand(2, 3, 36, 36) * 255).to(torch.uint8)
    jigsaw = JigsawPatches.scaled(32)
    sample = jigsaw.transform(Sample(images, white=255.0), draws(2))
    assert torch.equal(sample.unit_images(), jigsaw(images / 255, draws(2)))
    with pytest.raises(UsageError, match="columns depth"):
        jigsaw.transform(Sample(images, {"depth": images[:, :1]}, {"depth": "values"}), draws(2))
    with pytest.raises(UsageError, match="smaller than their tensor"):
        jigsaw.transform(Sample(images, sizes=torch.tensor([[30, 30], [36, 36]])), draws(2))


@pytest.mark.parametrize("shuffled", [False, True])
def test_compiled_equals_eager(shuffled):
    jigsaw, images = JigsawPatches(3, 12, 9, shuffled), torch.rand(3, 3, 36, 36)
    compiled = torch.compile(
        lambda images, index: jigsaw(images, Draws.of(0, 0, index)), backend="aot_eager", fullgraph=True
    )
    assert torch.equal(compiled(images, torch.arange(3)), jigsaw(images, draws(3)))


def test_mistakes():
    with pytest.raises(UsageError, match="patches of 9"):
        JigsawPatches(cell=8, patch=9)
    with pytest.raises(UsageError, match="0x0 cells"):
        JigsawPatches(grid=0)
    with pytest.raises(UsageError, match="not 32x32: crop and resize them to 36"):
        JigsawPatches.scaled(32)(torch.rand(1, 3, 32, 32))
