import io
import logging

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_infomax.data import decode_images
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


def test_nothing_left_is_an_error(with_corrupt):
    with pytest.raises(UsageError, match="none of the 2 images"):
        decode_images(with_corrupt.select([1, 3]), "image", 16, on_corrupt="skip", progress=False)


def test_settings_out_of_range(with_corrupt):
    with pytest.raises(UsageError, match="choose stop or skip"):
        decode_images(with_corrupt, "image", 16, on_corrupt="ignore")
    with pytest.raises(UsageError, match="image size is 0"):
        decode_images(with_corrupt, "image", 0)
