"""Crops and flips: torchvision's pixels, and torchvision's distributions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torchvision import transforms as T
from torchvision.transforms import functional as TF

from hf_infomax.data.augmentations import Draws, HorizontalFlip, RandomCrop, RandomResizedCrop, Sample
from hf_infomax.data.augmentations.geometry import Crop
from hf_infomax.models.errors import UsageError

COUNT = 10_000
SIGNIFICANT = 0.001


def draws(batch=COUNT, seed=0):
    return Draws.of(seed, 0, torch.arange(batch))


def boxes_of(crop, height, width, seed=0, count=COUNT):
    """(count, 4) top, left, height, width, as many as `count` images of one size draw."""
    geometry = crop.geometry(draws(count, seed), torch.tensor([height, width]).expand(count, 2), (height, width))
    left, top, right, bottom = geometry.bounds.T
    return torch.stack([top, left, bottom - top, right - left], 1).double().numpy()


# --- pixels


@pytest.mark.parametrize(
    ("source", "side"),
    [((32, 32), 32), ((48, 40), 32), ((24, 28), 32), ((96, 80), 32), ((96, 120), 64), ((32, 32), 80)],
)
def test_resized_crops_equal_torchvision(source, side, fidelity, pictures):
    height, width = source
    boxes = torch.tensor([[0, 0, height, width], [3, 5, 9, 13], [height - 7, 0, 7, width], [1, 2, 20, 8], [4, 4, 1, 2]])

    def ours(images):
        own = boxes.float()[torch.arange(len(images)) % len(boxes)]
        return Crop.of(*own.T, (side, side)).values(images)

    def theirs(image, place):
        return TF.resized_crop(image, *boxes[place % len(boxes)].tolist(), [side, side], antialias=True)

    where = "small" if max(height, width, side) < 64 else "large"
    fidelity.to_torchvision(f"resized crop, {where}", pictures(*source), ours, theirs)


@pytest.mark.parametrize("side", [32, 64], ids=["batched", "one by one"])
def test_drawn_crops_equal_torchvision(side, fidelity, pictures):
    for pixels in pictures():
        crop = RandomResizedCrop(side)
        boxes = boxes_of(crop, 32, 32, count=len(pixels)).astype(int).tolist()
        theirs = [TF.resized_crop(image / 255, *box, [side, side]) for image, box in zip(pixels, boxes, strict=True)]
        ours = crop(pixels / 255, draws(len(pixels)))
        fidelity("RandomResizedCrop", "torchvision, float", ours, torch.stack(theirs), bound=1e-6)


def test_flips_equal_torchvision(fidelity, pictures):
    fidelity.to_torchvision(
        "horizontal flip", pictures(), HorizontalFlip(1.0), lambda image, _: TF.hflip(image), 0.0, 1e-7
    )


@pytest.mark.parametrize(
    ("source", "side", "padding"),
    [((32, 32), 32, 4), ((40, 48), 32, 0), ((20, 24), 32, 11), ((8, 8), 8, 7), ((6, 6), 8, 1)],
)
def test_padded_crops_equal_torchvision(source, side, padding, fidelity, pictures):
    crop = RandomCrop(side, padding)
    for pixels in pictures(*source):
        geometry = crop.geometry(draws(len(pixels)), torch.tensor(source).expand(len(pixels), 2), source)
        corners = geometry.matrix[:, :, 2].flip(1).long() + padding

        def theirs(image, place, corners=corners):
            padded = TF.pad(image, padding, padding_mode="reflect") if padding else image
            return TF.crop(padded, *corners[place].tolist(), side, side)

        fidelity.to_torchvision(
            "random crop", [pixels], lambda images: crop(images, draws(len(images))), theirs, 0.0, 1e-7
        )


def test_every_padded_crop_and_flip_occurs():
    image = torch.rand(1, 3, 8, 8)
    cropped = RandomCrop(8, padding=1)(image.expand(COUNT, -1, -1, -1), draws())
    drawn = HorizontalFlip(0.5)(cropped, draws(seed=1))
    padded = F.pad(image, (1,) * 4, mode="reflect")[0]  # (3, 10, 10)
    candidates = [padded[:, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    candidates += [candidate.flip(-1) for candidate in candidates]
    counts = [(drawn == candidate).flatten(1).all(1).sum().item() for candidate in candidates]
    assert sum(counts) == COUNT
    assert stats.chisquare(counts).pvalue > SIGNIFICANT


# --- distributions


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (96, 96, (0.2, 1.0), (3 / 4, 4 / 3)),
        (48, 160, (0.08, 0.5), (3 / 4, 4 / 3)),
        (160, 40, (0.3, 1.0), (1 / 2, 2.0)),
    ],
)
def test_boxes_are_distributed_as_torchvisions(height, width, scale, ratio):
    ours = boxes_of(RandomResizedCrop(8, scale, ratio), height, width)
    image = torch.empty(3, height, width)
    theirs = np.array([T.RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(COUNT)], float)
    for name, statistic in {
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
        "right": lambda box: box[:, 1] + box[:, 3],
        "place for its room": lambda box: (box[:, 0] + 0.5) / (height - box[:, 2] + 1),
    }.items():
        assert stats.ks_2samp(statistic(ours), statistic(theirs)).pvalue > SIGNIFICANT, name


def test_areas_aspects_and_places_are_uniform_where_every_box_fits():
    boxes = boxes_of(RandomResizedCrop(8, (0.1, 0.5), (0.5, 2.0)), 1_000, 1_000)
    area, aspect = boxes[:, 2] * boxes[:, 3] / 1e6, np.log2(boxes[:, 3] / boxes[:, 2])
    place = (boxes[:, :2] + 0.5) / (1_001 - boxes[:, 2:])
    assert stats.kstest(area, stats.uniform(0.1, 0.4).cdf).pvalue > SIGNIFICANT
    assert stats.kstest(aspect, stats.uniform(-1, 2).cdf).pvalue > SIGNIFICANT
    assert stats.kstest(place[:, 0], "uniform").pvalue > SIGNIFICANT
    assert stats.kstest(place[:, 1], "uniform").pvalue > SIGNIFICANT
    assert np.abs(np.corrcoef([area, aspect, *place.T]) - np.eye(4)).max() < 0.04  # 4 standard deviations


@pytest.mark.parametrize("size", [(8, 100), (100, 8), (7, 93), (93, 7)])
def test_what_never_fits_is_cut_from_the_centre(size):
    image, options = torch.empty(3, *size), ([0.5, 1.0], [3 / 4, 4 / 3])
    expected = T.RandomResizedCrop.get_params(image, *options)
    assert (boxes_of(RandomResizedCrop(8, *options), *size, count=200) == expected).all()


def test_what_seldom_fits_falls_back_as_often_as_in_torchvision():
    height, width, options = 30, 60, ([0.6, 1.0], [3 / 4, 4 / 3])
    central = T.RandomResizedCrop.get_params(torch.empty(3, 3_000, 6_000), [1.0, 1.0], [3 / 4, 4 / 3])
    central = tuple(value // 100 for value in central)
    ours = boxes_of(RandomResizedCrop(8, *options), height, width)
    image = torch.empty(3, height, width)
    theirs = np.array([T.RandomResizedCrop.get_params(image, *options) for _ in range(COUNT)])
    counts = [int((boxes == central).all(1).sum()) for boxes in (ours, theirs)]
    assert 0.02 * COUNT < counts[0] < 0.98 * COUNT
    table = [[count, COUNT - count] for count in counts]
    assert stats.chi2_contingency(table).pvalue > SIGNIFICANT


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_rate_of_flips(probability):
    images = torch.tensor([0.0, 1.0]).expand(COUNT, 3, 1, 2)
    flips = int(HorizontalFlip(probability)(images, draws())[:, 0, 0, 0].sum())
    assert stats.binomtest(flips, COUNT, probability).pvalue > SIGNIFICANT


# --- padded batches, types, errors

SIZES = torch.tensor([[8, 8], [16, 12], [9, 16], [16, 16], [10, 11]])


@pytest.mark.parametrize(
    "augmentation",
    [RandomResizedCrop(12), RandomResizedCrop(64), RandomCrop(12, padding=5), HorizontalFlip(0.5)],
    ids=["batched", "one by one", "padded", "flip"],
)
def test_the_padding_of_a_batch_is_never_read(augmentation):
    contents = [torch.rand(3, *size) for size in SIZES.tolist()]

    def augmented(filling):
        canvas = torch.full((len(SIZES), 3, 16, 16), filling)
        for place, image in enumerate(contents):
            canvas[place, :, : image.shape[1], : image.shape[2]] = image
        return augmentation.transform(Sample(canvas, sizes=SIZES), draws(len(SIZES)))

    moved, other = augmented(1e6), augmented(-1e6)
    assert torch.equal(moved.images, other.images)
    assert moved.sizes is None
    assert moved.images.max() <= 1 + 1e-6
    if isinstance(augmentation, HorizontalFlip):
        return
    for place, image in enumerate(contents):  # as if each had come alone, without any padding
        alone = augmentation(image[None], draws(len(SIZES)).select(slice(place, place + 1)))
        torch.testing.assert_close(moved.images[place], alone[0], atol=1e-6, rtol=0)


def test_small_images_of_a_batch_are_flipped_in_their_place():
    sizes = torch.tensor([[4, 3], [16, 16], [1, 1], [2, 16]])
    canvas = torch.full((4, 3, 16, 16), torch.nan)
    contents = [torch.rand(3, *size) for size in sizes.tolist()]
    for place, image in enumerate(contents):
        canvas[place, :, : image.shape[1], : image.shape[2]] = image
    for probability in (0.0, 1.0):
        flipped = HorizontalFlip(probability).transform(Sample(canvas, sizes=sizes), draws(4)).images
        assert flipped.isfinite().all()  # what remains of the canvas repeats the image
        for image, result in zip(contents, flipped, strict=True):
            expected = image.flip(-1) if probability else image
            assert torch.equal(result[:, : image.shape[1], : image.shape[2]], expected)


def test_flips_with_columns_equal_flips_without():
    images = torch.rand(64, 3, 6, 6)
    together = HorizontalFlip().transform(Sample(images, {"depth": images[:, :1]}, {"depth": "values"}), draws(64))
    assert torch.equal(together.images, HorizontalFlip()(images, draws(64)))
    assert torch.equal(together.columns["depth"], together.images[:, :1])


def test_gradients_pass_to_the_pixels():
    images = torch.rand(8, 3, 8, 8, requires_grad=True)
    HorizontalFlip()(RandomCrop(8)(images)).sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.2)), "the area of a crop is between 0.5 and 0.2"),
        (lambda: RandomResizedCrop(8, scale=(0.1, 1.2)), "from 0 to 1"),
        (lambda: RandomResizedCrop(8, scale=(0.0, 1.0)), "must be above 0"),
        (lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)), "the aspect of a crop is between"),
        (lambda: RandomResizedCrop(8, ratio=(0.0, 1.0)), "must be above 0"),
        (lambda: RandomCrop(8, padding=-1), "the padding is -1"),
        (lambda: RandomCrop(8, padding=1.5), "the padding is 1.5"),
        (lambda: RandomCrop(8, padding=8)(torch.rand(2, 3, 8, 8)), "cannot be reflected from images of 8x8"),
        (lambda: RandomCrop(16, padding=2)(torch.rand(2, 3, 8, 9)), "crops of 16 pixels do not fit into images of 8x9"),
        (lambda: HorizontalFlip(2), "the probability of flip is 2: give a number between 0 and 1"),
    ],
)
def test_wrong_arguments(build, sentence):
    with pytest.raises(UsageError, match=sentence):
        build()
