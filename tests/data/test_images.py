import io
import logging

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_infomax.data import decode_images
from hf_infomax.data.stores import VariableImages
from hf_infomax.models.errors import UsageError


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return {"bytes": file.getvalue(), "path": None}


def as_dataset(values):
    return datasets.Dataset.from_dict({"image": values}, features=datasets.Features({"image": datasets.Image()}))


def decode_one(image, size, **options):
    return decode_images(as_dataset([encoded(image, **options)]), "image", size, progress=False).pixels[0]


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def test_pixels_are_the_images(noise):
    decoded = decode_images(as_dataset([encoded(Image.fromarray(image)) for image in noise]), "image", 16)
    assert decoded.pixels.dtype == torch.uint8
    assert decoded.pixels.is_contiguous()
    assert torch.equal(decoded.pixels, torch.from_numpy(noise).permute(0, 3, 1, 2))
    assert torch.equal(decoded.indices, torch.arange(5))
    assert decoded.indices.dtype == torch.int64
    assert decoded.skipped == 0


def test_rows_of_a_selection_are_followed(digits):
    some = digits.select([3, 900, 14])
    decoded = decode_images(some, "image", 32, progress=False)
    expected = np.stack([np.asarray(image) for image in some["image"]])
    assert torch.equal(decoded.pixels, torch.from_numpy(expected).permute(0, 3, 1, 2))


def test_more_rows_than_are_read_at_once(digits):
    decoded = decode_images(digits, "image", 32, progress=False)
    assert len(decoded.pixels) == 1_100
    assert torch.equal(decoded.indices, torch.arange(1_100))
    last = torch.from_numpy(np.array(digits[-1]["image"])).permute(2, 0, 1)
    assert torch.equal(decoded.pixels[-1], last)


def test_files_on_disk(tmp_path, noise):
    Image.fromarray(noise[0]).save(tmp_path / "one.png")
    decoded = decode_images(as_dataset([str(tmp_path / "one.png")]), "image", 16, progress=False)
    assert torch.equal(decoded.pixels[0], torch.from_numpy(noise[0]).permute(2, 0, 1))


def test_grey_becomes_three_equal_channels(noise):
    grey = decode_one(Image.fromarray(noise[0, ..., 0]), 16)
    assert torch.equal(grey, torch.from_numpy(noise[0, ..., 0]).expand(3, -1, -1))


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    assert torch.equal(decode_one(Image.fromarray(ramp), 16)[0], torch.from_numpy((ramp >> 8).astype(np.uint8)))


def test_transparency_is_dropped(noise):
    alpha = np.full((16, 16, 1), 7, dtype=np.uint8)
    image = Image.fromarray(np.concatenate([noise[0], alpha], axis=-1))
    assert torch.equal(decode_one(image, 16), torch.from_numpy(noise[0]).permute(2, 0, 1))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [{}, {"transparency": 1}, {"transparency": b"\x00\x80"}])
def test_palettes_become_their_colours(options):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 250, 100, 50])
    colour = decode_one(image, 16, **options).flatten(1)
    assert torch.equal(colour, torch.tensor([[250], [100], [50]], dtype=torch.uint8).expand(-1, 256))


def test_photographs_are_turned_upright(noise):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = decode_one(Image.fromarray(noise[0]), 16, exif=exif)
    assert torch.equal(turned, torch.from_numpy(np.rot90(noise[0], -1).copy()).permute(2, 0, 1))


@pytest.mark.parametrize(("width", "height", "box"), [(24, 16, (4, 0, 20, 16)), (16, 26, (0, 5, 16, 21))])
def test_the_centre_is_cropped(width, height, box):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    assert torch.equal(decode_one(image, 16), torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1))


def test_resizing_is_antialiased():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255  # a chequerboard of single pixels
    small = decode_one(Image.fromarray(board.astype(np.uint8)), 16).float()
    assert (small - 127.5).abs().max() < 20  # without antialiasing some pixels are black or white


def test_enlarging_a_small_image():
    assert decode_one(Image.new("RGB", (8, 8), (10, 20, 30)), 16).shape == (3, 16, 16)


@pytest.fixture
def with_corrupt(noise):
    values = [encoded(Image.fromarray(image)) for image in noise]
    values[1] = {"bytes": b"no image at all", "path": None}
    values[3] = {"bytes": values[3]["bytes"][:200], "path": None}  # cut short
    return as_dataset(values)


def test_a_corrupt_image_stops(with_corrupt):
    with pytest.raises(UsageError, match=r"row 1 .*data\.on_corrupt=skip"):
        decode_images(with_corrupt, "image", 16, progress=False)
    with pytest.raises(UsageError, match=r"row 1 "):
        decode_images(with_corrupt.select([0, 3]), "image", 16, progress=False)


def test_corrupt_images_are_skipped_and_counted(with_corrupt, noise, caplog):
    with caplog.at_level(logging.WARNING):
        decoded = decode_images(with_corrupt, "image", 16, on_corrupt="skip", progress=False)
    assert decoded.skipped == 2
    assert decoded.indices.tolist() == [0, 2, 4]
    assert decoded.pixels.is_contiguous()
    assert torch.equal(decoded.pixels, torch.from_numpy(noise[[0, 2, 4]]).permute(0, 3, 1, 2))
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 5 images could not be decoded and were skipped (data.on_corrupt=skip)"
    ]


def test_missing_images_count_as_corrupt(tmp_path, noise):
    dataset = as_dataset([encoded(Image.fromarray(noise[0])), None, str(tmp_path / "gone.png")])
    assert decode_images(dataset, "image", 16, on_corrupt="skip", progress=False).indices.tolist() == [0]
    with pytest.raises(UsageError, match=r"row 1 .*missing"):
        decode_images(dataset, "image", 16, progress=False)


@pytest.mark.parametrize("kind", ["pixels", "labels", "values"])
def test_missing_images_may_be_blank(noise, kind, caplog):
    values = [encoded(Image.fromarray(image if kind == "pixels" else image[..., 0])) for image in noise]
    values[1] = values[4] = None
    decoded = decode_images(as_dataset(values), "image", 16, kind=kind, on_missing="blank", progress=False)
    assert decoded.present.tolist() == [True, False, True, True, False]
    assert decoded.indices.tolist() == list(range(5))
    assert (decoded.skipped, caplog.records) == (0, [])
    assert (decoded.pixels[[1, 4]] == 0).all()
    whole = decode_images(as_dataset(values).select([0, 2, 3]), "image", 16, kind=kind, progress=False)
    assert torch.equal(decoded.pixels[decoded.present], whole.pixels)
    assert whole.present.all()


def test_blank_images_have_no_size_where_they_keep_their_aspect(noise):
    values = [encoded(Image.fromarray(noise[0][:, :10])), None, encoded(Image.fromarray(noise[1][:, :10]))]
    decoded = decode_images(as_dataset(values), "image", shorter_side=8, on_missing="blank", progress=False)
    assert decoded.sizes.tolist() == [[13, 8], [0, 0], [13, 8]]
    assert decoded.present.tolist() == [True, False, True]
    assert decoded.pixels[[1, 2]][0].shape == (2, 3, 13, 8)


def test_a_corrupt_image_is_not_a_missing_one(with_corrupt):
    with pytest.raises(UsageError, match=r"row 1 "):
        decode_images(with_corrupt, "image", 16, on_missing="blank", progress=False)
    decoded = decode_images(with_corrupt, "image", 16, on_missing="blank", on_corrupt="skip", progress=False)
    assert decoded.indices.tolist() == [0, 2, 4]
    assert decoded.present.all()


def test_a_column_without_any_image_is_an_error():
    with pytest.raises(UsageError, match="none of the 2 images of 'image' can be decoded, or all are missing"):
        decode_images(as_dataset([None, None]), "image", 16, on_missing="blank", progress=False)


def test_every_image_of_different_sizes(noise):
    images = [Image.fromarray(image[: 16 - row, : 6 + row]) for row, image in enumerate(noise)]
    decoded = decode_images(as_dataset([encoded(image) for image in images]), "image", shorter_side=8, progress=False)
    assert isinstance(decoded.pixels, VariableImages)
    assert decoded.original_sizes.tolist() == [[16, 6], [15, 7], [14, 8], [13, 9], [12, 10]]
    assert decoded.sizes.tolist() == [[16, 6], [15, 7], [14, 8], [12, 8], [10, 8]]
    for row, image in enumerate(images):
        pixels, sizes = decoded.pixels[[row]]
        assert sizes.tolist() == decoded.sizes[[row]].tolist()
        height, width = sizes[0].tolist()
        expected = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        assert torch.equal(pixels[0], torch.from_numpy(expected.copy()).permute(2, 0, 1))


def test_images_that_keep_one_aspect_are_one_tensor(noise):
    dataset = as_dataset([encoded(Image.fromarray(image[:, :8])) for image in noise])
    assert decode_images(dataset, "image", shorter_side=4, progress=False).pixels.shape == (5, 3, 8, 4)


@pytest.mark.parametrize("cache", [True, False])
def test_the_widest_class_map_decides_for_all(noise, cache):
    maps = [noise[0, ..., 0], noise[1, ..., 0], noise[2, ..., 0].astype(np.uint16) * 200]
    values = [encoded(Image.fromarray(indices)) for indices in maps]
    options = {"kind": "labels", "progress": False, "cache": cache}
    narrow = decode_images(as_dataset(values[:2]), "image", 16, **options).pixels
    assert (narrow.shape, narrow.dtype) == ((2, 1, 16, 16), torch.uint8)
    wide = decode_images(as_dataset(values), "image", 16, **options).pixels
    assert (wide.shape, wide.dtype) == ((3, 1, 16, 16), torch.int32)
    assert torch.equal(wide[:, 0], torch.from_numpy(np.stack(maps).astype(np.int32)))


def mark(images, boxes):
    """Black images with a white rectangle where the box is."""
    for image, (left, top, right, bottom) in zip(images, boxes, strict=True):
        image[top:bottom, left:right] = 255
    return as_dataset([encoded(Image.fromarray(image)) for image in images])


@pytest.mark.parametrize("size", [{"image_size": 20}, {"shorter_side": 20}])
def test_boxes_follow_the_pixels(size):
    sizes = [(40, 80), (80, 40), (40, 40), (60, 90)]
    boxes = [[28, 4, 44, 20], [4, 28, 20, 60], [0, 0, 40, 40], [21, 30, 60, 42]]
    dataset = mark([np.zeros((height, width, 3), dtype=np.uint8) for height, width in sizes], boxes)
    decoded = decode_images(dataset, "image", progress=False, **size)
    for row, (left, top, right, bottom) in enumerate(decoded.boxes([[box] for box in boxes])[:, 0].round().int()):
        image = decoded.pixels[[row]]
        image = image[0] if isinstance(image, tuple) else image
        rows, columns = (image[0, 0] > 127).nonzero().unbind(1)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [left, top, right, bottom]


def test_boxes_are_clipped_and_those_outside_are_none():
    dataset = as_dataset([encoded(Image.new("RGB", (200, 100))), encoded(Image.new("RGB", (50, 50)))])
    decoded = decode_images(dataset, "image", 50, progress=False)
    boxes = decoded.boxes([[[0, 0, 100, 100], [0, 10, 50, 20], [60, 20, 40, 30], [140, -5, 160, 4]], [[1, 2, 3, 4]]])
    none = [torch.nan] * 4
    expected = torch.tensor([[[0, 0, 25, 50], none, none, [45, 0, 50, 2]], [[1, 2, 3, 4], none, none, none]])
    assert boxes.dtype == torch.float32
    torch.testing.assert_close(boxes, expected, equal_nan=True)
    assert decoded.boxes([[], []]).shape == (2, 0, 4)
    with pytest.raises(UsageError, match=r"boxes of 1 images and 2 images"):
        decoded.boxes([[]])


def test_nothing_left_is_an_error(with_corrupt):
    with pytest.raises(UsageError, match="none of the 2 images"):
        decode_images(with_corrupt.select([1, 3]), "image", 16, on_corrupt="skip", progress=False)


def test_settings_out_of_range(with_corrupt):
    with pytest.raises(UsageError, match="choose stop or skip"):
        decode_images(with_corrupt, "image", 16, on_corrupt="ignore")
    with pytest.raises(UsageError, match="Unknown policy about missing images 'hide': choose one of corrupt, blank"):
        decode_images(with_corrupt, "image", 16, on_missing="hide")
    with pytest.raises(UsageError, match="image size is 0"):
        decode_images(with_corrupt, "image", 0)
    with pytest.raises(UsageError, match="either image_size or shorter_side"):
        decode_images(with_corrupt, "image")
