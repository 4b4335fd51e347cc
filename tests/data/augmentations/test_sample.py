"""All columns of a sample go the same way."""

import pytest
import torch

from hf_infomax.data.augmentations import KINDS, Draws, HorizontalFlip, RandomCrop, RandomResizedCrop, Sample
from hf_infomax.data.augmentations.geometry import Geometry

HEIGHT, WIDTH, BATCH = 24, 30, 20

STEPS = {
    "resized crop": [RandomResizedCrop(16)],
    "one by one": [RandomResizedCrop(64)],
    "flip": [HorizontalFlip()],
    "crop": [RandomCrop(16, padding=3)],
    "all": [RandomResizedCrop(20), HorizontalFlip(), RandomCrop(16, padding=2)],
}


def augmented(sample, steps, seed=0):
    draws = Draws.of(seed, 0, torch.arange(len(sample.images)))
    for step in steps:
        sample = step.transform(sample, draws)
    return sample


def coordinates():
    """(B, 2, H, W): x and y of every pixel as a part of the image's size."""
    y, x = (torch.arange(HEIGHT) + 0.5) / HEIGHT, (torch.arange(WIDTH) + 0.5) / WIDTH
    return torch.stack([x.expand(HEIGHT, WIDTH), y[:, None].expand(HEIGHT, WIDTH)]).expand(BATCH, -1, -1, -1)


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_pixels_and_coordinates_move_together(steps):
    place = coordinates()
    mixing = torch.rand(BATCH, 3, 2)  # every image is a linear function of its coordinates, before and after
    images = torch.einsum("bcp,bphw->bchw", mixing, place)
    moved = augmented(Sample(images, {"place": place}, {"place": "values"}), steps)
    assert moved.images.shape[-2:] == moved.columns["place"].shape[-2:]
    again = torch.einsum("bcp,bphw->bchw", mixing, moved.columns["place"])
    torch.testing.assert_close(moved.images, again, atol=2e-6, rtol=0)
    others = augmented(Sample(images, {"place": place}, {"place": "values"}), steps, seed=1)
    assert not torch.equal(moved.images, others.images)


@pytest.mark.parametrize("steps", [STEPS["flip"], STEPS["crop"]], ids=["flip", "crop"])
def test_labels_name_the_pixel_that_is_there(steps):
    images = torch.rand(BATCH, 3, HEIGHT, WIDTH)
    labels = torch.arange(HEIGHT * WIDTH).view(HEIGHT, WIDTH).expand(BATCH, -1, -1)
    moved = augmented(Sample(images, {"labels": labels}, {"labels": "labels"}), steps)
    found = images.flatten(2).gather(2, moved.columns["labels"].flatten(1)[:, None].expand(-1, 3, -1))
    assert torch.equal(moved.images.flatten(2), found)


def test_labels_lie_under_the_pixels_of_a_resized_crop():
    place = coordinates()
    halves = (place[:, 0] > 0.5).long()
    moved = augmented(
        Sample(
            place.new_zeros(BATCH, 3, HEIGHT, WIDTH), {"x": place, "half": halves}, {"x": "values", "half": "labels"}
        ),
        STEPS["resized crop"],
    )
    x = moved.columns["x"][:, 0]
    clear = (x - 0.5).abs() > 1 / WIDTH
    assert torch.equal(moved.columns["half"][clear], (x > 0.5).long()[clear])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_method_of_a_geometry(kind):
    assert callable(getattr(Geometry, kind))


def test_colours_change_images_alone_and_units_are_kept():
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    sample = Sample(pixels, {"depth": torch.rand(4, 1, 8, 8)}, {"depth": "values"}, white=255.0)
    assert sample.canvas == (8, 8)
    assert sample.extents().tolist() == [[8, 8]] * 4
    torch.testing.assert_close(sample.unit_images(), pixels / 255)
    moved = augmented(sample, [RandomResizedCrop(8, (1.0, 1.0), (1.0, 1.0))])
    assert moved.white == sample.white  # a geometry keeps the units
    torch.testing.assert_close(moved.unit_images(), pixels / 255)
    torch.testing.assert_close(moved.columns["depth"], sample.columns["depth"])


def test_parts_and_repetitions():
    sizes = torch.tensor([[8, 8], [4, 5], [6, 8]])
    sample = Sample(torch.rand(3, 3, 8, 8), {"depth": torch.rand(3, 1, 8, 8)}, {"depth": "values"}, sizes)
    part = sample.select(slice(1, 3))
    assert torch.equal(part.images, sample.images[1:])
    assert torch.equal(part.columns["depth"], sample.columns["depth"][1:])
    assert part.extents().tolist() == [[4, 5], [6, 8]]
    twice = sample.repeated(2)
    assert torch.equal(twice.images, sample.images[[0, 0, 1, 1, 2, 2]])
    assert torch.equal(twice.columns["depth"], sample.columns["depth"][[0, 0, 1, 1, 2, 2]])
    assert twice.extents().tolist() == [[8, 8], [8, 8], [4, 5], [4, 5], [6, 8], [6, 8]]
    once = sample.repeated(1)
    once.images.zero_()
    assert sample.images.ne(0).any()  # memory of its own
    assert sample.alone().columns == {}
