"""Pairs: two windows that are d apart, and two halves that add up to the image."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torchvision.transforms import functional as TF

from hf_infomax.data.augmentations import DistantPatches, Draws, FrequencySeparation, Sample, photometry
from hf_infomax.models.errors import UsageError

COUNT = 10_000


def numbered(batch, height, width):
    """Images whose values are all different: (B, 3, H, W) float32."""
    return torch.arange(batch * 3 * height * width, dtype=torch.float32).view(batch, 3, height, width)


def draws(batch, seed=0):
    return Draws.of(seed, epoch=0, sample_index=torch.arange(batch))


def corners_of(patches, images):
    """(B, 2) rows and columns at which patches of numbered images begin."""
    start = (patches[:, 0, 0, 0] - images[:, 0, 0, 0]).long()
    return torch.stack([start // images.shape[3], start % images.shape[3]], 1)


# --- patches


@pytest.mark.parametrize(("size", "distance"), [(4, 0), (4, 3), (5, 9), (1, 13)])
def test_the_second_patch_is_the_distance_down_and_right_of_the_first(size, distance):
    images = numbered(12, 16, 20)
    pairs = DistantPatches(size, distance)(images, draws(12)).unflatten(0, (12, 2))
    assert pairs.shape == (12, 2, 3, size, size)
    first = corners_of(pairs[:, 0], images)
    for image, pair, (top, left) in zip(images, pairs, first.tolist(), strict=True):
        assert torch.equal(pair[0], image[:, top : top + size, left : left + size])
        top, left = top + distance, left + distance
        assert torch.equal(pair[1], image[:, top : top + size, left : left + size])


def test_every_place_occurs_equally_often():
    images = numbered(1, 9, 10).expand(COUNT, -1, -1, -1)
    first = DistantPatches(size=3, distance=4)(images, draws(COUNT))[::2]
    top, left = corners_of(first, images).unbind(1)
    assert (int(top.max()), int(left.max())) == (9 - 3 - 4, 10 - 3 - 4)
    counts = (top * 4 + left).bincount(minlength=12)
    assert stats.chisquare(counts.tolist()).pvalue > 0.001


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
def test_any_type_of_pixel_stays_what_it_is(dtype):
    images = torch.randint(0, 256, (6, 3, 12, 14), dtype=torch.uint8)
    given = images if dtype == torch.uint8 else (images / 255).to(dtype)
    expected = DistantPatches(4, 5)(images / 255, draws(6)).to(torch.float32 if dtype == torch.uint8 else dtype)
    before = given.clone()
    patches = DistantPatches(4, 5)(given, draws(6))
    assert patches.dtype == dtype
    assert torch.equal(patches / 255 if dtype == torch.uint8 else patches, expected)
    assert torch.equal(given, before)


def test_a_pair_belongs_to_its_image():
    images, patches = torch.rand(6, 3, 16, 16), DistantPatches(4, 6)
    pairs = patches(images, draws(6)).unflatten(0, (6, 2))
    order = torch.tensor([4, 1, 5])
    chosen = patches(images[order], Draws.of(seed=0, epoch=0, sample_index=order)).unflatten(0, (3, 2))
    assert torch.equal(chosen, pairs[order])
    assert not torch.equal(patches(images, draws(6, seed=1)), pairs.flatten(0, 1))
    assert not torch.equal(patches(images), patches(images))


def test_the_padding_of_a_batch_is_never_read():
    sizes = torch.tensor([[9, 9], [16, 12], [10, 16], [16, 16]]).repeat(8, 1)
    canvas = torch.full((32, 3, 16, 16), torch.nan)
    contents = [torch.rand(3, *size) for size in sizes.tolist()]
    for place, image in enumerate(contents):
        canvas[place, :, : image.shape[1], : image.shape[2]] = image
    moved = DistantPatches(4, 5).transform(Sample(canvas, sizes=sizes), draws(32))
    assert moved.sizes is None
    for place, image in enumerate(contents):  # as if each had come alone, without any padding
        alone = DistantPatches(4, 5)(image[None], draws(32).select(slice(place, place + 1)))
        assert torch.equal(moved.images[2 * place : 2 * place + 2], alone)


def test_columns_follow_both_patches():
    images = torch.randint(0, 256, (8, 3, 14, 14), dtype=torch.uint8)
    whole = torch.tensor([[[0.0, 0.0, 14.0, 14.0]]]).expand(8, 1, 4)
    columns = {"depth": images[:, :1].float(), "semantic": images[:, 0], "boxes": whole}
    kinds = {"depth": "values", "semantic": "labels", "boxes": "boxes"}
    moved = DistantPatches(4, 6).transform(Sample(images, columns, kinds, white=255.0), draws(8))
    assert torch.equal(moved.columns["depth"], moved.images[:, :1])
    assert torch.equal(moved.columns["semantic"], moved.images[:, 0].to(torch.uint8))
    assert torch.equal(moved.columns["boxes"], torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]).expand(16, 1, 4))
    torch.testing.assert_close(moved.unit_images(), DistantPatches(4, 6)(images / 255, draws(8)))


# --- frequencies


@pytest.mark.parametrize("sigma", [0.0, 1e-4, 0.3, 0.7, 1.0, 2.5, 40.0])
@pytest.mark.parametrize("size", [(24, 20), (3, 7), (1, 1), (2, 16)])
def test_the_halves_add_up_to_the_image(sigma, size):
    images = torch.rand(6, 3, *size)
    before = images.clone()
    low, high = FrequencySeparation(sigma)(images, draws(6)).unflatten(0, (6, 2)).unbind(1)
    torch.testing.assert_close(low + (2 * high - 1), images, atol=1e-6, rtol=0)
    assert torch.equal(images, before)
    for half in (low, high):
        assert half.min() >= -1e-6
        assert half.max() <= 1 + 1e-6


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.0, 2.5])
def test_the_first_half_is_the_blurred_image(sigma, fidelity, pictures):
    module = FrequencySeparation(sigma)
    for pixels in pictures(32, 32):
        low = module(pixels / 255)[::2]
        taps = module.kernel_size(32, 32)
        theirs = TF.gaussian_blur(pixels / 255, [taps, taps], [sigma, sigma])
        fidelity("frequency separation", "torchvision, float", low, theirs, 1e-6)
        ours = photometry.gaussian_blur(pixels / 255, torch.full((len(pixels),), sigma), taps)
        assert torch.equal(low, ours)


@pytest.mark.parametrize("sigma", [0.0, 1e-5, 1e-3])
def test_without_blur_the_first_is_the_image_and_the_second_grey(sigma):
    images = torch.rand(4, 3, 9, 12)
    low, high = FrequencySeparation(sigma)(images).unflatten(0, (4, 2)).unbind(1)
    assert torch.equal(low, images)
    assert torch.equal(high, torch.full_like(high, 0.5))


def test_a_large_sigma_leaves_the_first_flat():
    images = torch.rand(4, 3, 32, 32)
    spread = [FrequencySeparation(sigma)(images)[::2].std() for sigma in (0.5, 1.0, 2.0, 8.0)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 0.02


@pytest.mark.parametrize(
    ("sigma", "size", "taps"),
    [(0.0, (8, 8), 3), (0.2, (8, 8), 3), (0.7, (32, 32), 7), (1.0, (32, 32), 7), (1.1, (32, 32), 9), (2.0, (5, 9), 9)],
)
def test_taps(sigma, size, taps):
    assert FrequencySeparation(sigma).kernel_size(*size) == taps


def test_bytes_are_the_floats_rounded_once():
    pixels = torch.randint(0, 256, (5, 3, 16, 18), dtype=torch.uint8)
    floats, rounded = (FrequencySeparation(1.0)(images) for images in (pixels / 255, pixels))
    assert rounded.dtype == torch.uint8
    assert (floats * 255 - rounded).abs().max() <= 0.5 + 1e-3


def test_nothing_is_drawn_and_columns_are_there_for_both():
    pixels, depth = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8), torch.rand(4, 1, 8, 8)
    sizes = torch.tensor([[8, 8], [8, 7], [6, 8], [8, 8]])
    sample = Sample(pixels, {"depth": depth}, {"depth": "values"}, sizes, white=255.0)
    made = FrequencySeparation(1.0).transform(sample, draws(4))
    assert made.white == 1
    assert torch.equal(made.columns["depth"], depth.repeat_interleave(2, 0))
    assert torch.equal(made.sizes, sizes.repeat_interleave(2, 0))
    assert torch.equal(made.images, FrequencySeparation(1.0)(pixels / 255, draws(4, seed=1)))


def test_high_frequencies_are_what_a_flat_image_has_none_of():
    flat = torch.full((1, 3, 12, 12), 0.3)
    torch.testing.assert_close(FrequencySeparation(1.0)(flat), torch.stack([flat[0], torch.full_like(flat[0], 0.5)]))
    edge = F.pad(torch.zeros(1, 3, 12, 6), (0, 6), value=1.0)
    high = FrequencySeparation(1.0)(edge)[1]
    assert (high - 0.5).abs()[..., 5:7].min() > 0.1  # at the edge
    assert (high - 0.5).abs()[..., [0, 11]].max() < 1e-3  # and nowhere else


# --- both


@pytest.mark.parametrize("module", [DistantPatches(5, 4), FrequencySeparation(0.7)], ids=repr)
def test_compiled_equals_eager(module):
    images = torch.rand(3, 3, 12, 14)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda images, index: module(images, Draws.of(0, 0, index)), backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(images, torch.arange(3)), module(images, draws(3)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("module", [DistantPatches(5, 4), FrequencySeparation(0.7)], ids=repr)
def test_gradients_pass_to_the_pixels(module):
    images = torch.rand(3, 3, 12, 14, requires_grad=True)
    module(images, draws(3)).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: DistantPatches(0, 4), "patches of 0 pixels cannot be 4 apart"),
        (lambda: DistantPatches(4, -1), "patches of 4 pixels cannot be -1 apart"),
        (lambda: DistantPatches(4, 1.5), "give whole numbers of pixels"),
        (
            lambda: DistantPatches(8, 5)(torch.rand(2, 3, 12, 20)),
            r"8 pixels, 5 apart, do not fit into images of 12x20: decode them larger \(data\.shorter_side=13 or more\)",
        ),
        (
            lambda: DistantPatches(8, 5).transform(
                Sample(torch.rand(2, 3, 20, 20), sizes=torch.tensor([[20, 20], [14, 12]])), draws(2)
            ),
            "do not fit into images of 14x12",
        ),
        (lambda: FrequencySeparation(-0.1), "is -0.1: give pixels from 0 on"),
        (lambda: FrequencySeparation(math.inf), "is inf: give pixels from 0 on"),
        (lambda: FrequencySeparation(math.nan), "is nan: give pixels from 0 on"),
    ],
)
def test_wrong_arguments(build, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_what_just_fits_is_at_the_only_place():
    images = torch.rand(2, 3, 13, 13)
    pairs = DistantPatches(8, 5)(images, draws(2)).unflatten(0, (2, 2))
    assert torch.equal(pairs[:, 0], images[..., :8, :8])
    assert torch.equal(pairs[:, 1], images[..., 5:, 5:])
