import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from hf_infomax.data.decoding import CorruptImage, Decoder
from hf_infomax.models.errors import UsageError

RNG = np.random.default_rng(0)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return {"bytes": file.getvalue(), "path": None}


@pytest.mark.parametrize(("width", "height"), [(90, 60), (61, 90), (33, 20), (20, 20), (300, 7)])
def test_the_shorter_side_is_at_most_so_many_pixels_and_the_aspect_stays(width, height):
    image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    array, original = Decoder("image", shorter_side=30)(encoded(image))
    scale = min(1, 30 / min(width, height))
    expected = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    assert np.array_equal(array.transpose(1, 2, 0), np.asarray(expected))
    assert min(array.shape[1:]) == min(30, width, height)
    assert original == (height, width)


@pytest.mark.parametrize(("width", "height"), [(90, 60), (61, 90), (32, 32), (17, 20)])
def test_squares_are_cropped_from_the_centre(width, height):
    image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    array, original = Decoder("image", image_size=32)(encoded(image))
    expected = ImageOps.fit(image, (32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(array.transpose(1, 2, 0), np.asarray(expected))
    assert original == (height, width)


def class_map(dtype, highest):
    return RNG.integers(0, highest + 1, (30, 40)).astype(dtype)


def palette(indices):
    image = Image.fromarray(indices)
    image.putpalette(list(RNG.integers(0, 256, 768)))
    assert image.mode == "P"
    return image


@pytest.mark.parametrize(
    ("image", "dtype"),
    [
        (Image.fromarray(class_map(np.uint8, 255)), np.uint8),
        (palette(class_map(np.uint8, 20)), np.uint8),
        (Image.fromarray(class_map(np.uint8, 1).astype(bool)), np.uint8),
        (Image.fromarray(class_map(np.uint16, 60_000)), np.int32),
        (Image.fromarray(class_map(np.uint16, 3)), np.int32),  # the file's type decides, not its largest value
    ],
)
def test_labels_keep_their_indices(image, dtype):
    indices = np.asarray(image)
    whole, _ = Decoder("labels", shorter_side=30, kind="labels")(encoded(image))
    assert whole.dtype == dtype
    assert np.array_equal(whole[0], indices)
    half, _ = Decoder("labels", shorter_side=15, kind="labels")(encoded(image))
    assert np.array_equal(half[0], indices[1::2, 1::2])  # nearest to the middle of two, no mixture of classes
    square, _ = Decoder("labels", image_size=30, kind="labels")(encoded(image))
    assert np.array_equal(square[0], indices[:, 5:35])


@pytest.mark.parametrize(
    ("values", "format"),
    [
        (RNG.random((30, 40)).astype(np.float32) * 80, "TIFF"),
        (RNG.integers(0, 65_536, (30, 40)).astype(np.uint16), "PNG"),
        (RNG.integers(0, 256, (30, 40)).astype(np.uint8), "PNG"),
    ],
)
def test_values_are_never_mixed(values, format):
    values[3:9, 3:9] = 0  # nothing was measured there
    whole, _ = Decoder("depth", shorter_side=30, kind="values")(encoded(Image.fromarray(values), format))
    assert whole.dtype == np.float32
    assert np.array_equal(whole[0], values.astype(np.float32))
    small, _ = Decoder("depth", image_size=11, kind="values")(encoded(Image.fromarray(values), format))
    assert small.shape == (1, 11, 11)
    assert set(small.flatten()) <= set(values.astype(np.float32).flatten())


@pytest.mark.parametrize("kind", ["labels", "values"])
def test_colours_are_no_map(kind):
    with pytest.raises(UsageError, match=f"'semantic' has the mode RGB and {kind} are maps of one channel"):
        Decoder("semantic", image_size=8, kind=kind)(encoded(Image.new("RGB", (8, 8))))


def test_what_is_no_image():
    for value in (None, {"bytes": b"no image", "path": None}):
        with pytest.raises(CorruptImage):
            Decoder("image", image_size=8)(value)


@pytest.mark.parametrize("value", [None, {"bytes": None, "path": None}])
def test_what_is_missing_may_be_blank(value):
    blank, original = Decoder("labels", image_size=8, kind="labels", on_missing="blank")(value)
    assert (blank.shape, blank.dtype, blank.any(), original) == ((1, 8, 8), np.uint8, False, (0, 0))
    assert Decoder("image", shorter_side=8, on_missing="blank")(value)[0].shape == (3, 0, 0)
    with pytest.raises(CorruptImage, match="missing"):
        Decoder("image", image_size=8)(value)
    with pytest.raises(CorruptImage):
        Decoder("image", image_size=8, on_missing="blank")({"bytes": b"no image", "path": None})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "either image_size or shorter_side"),
        ({"image_size": 8, "shorter_side": 8}, "either image_size or shorter_side"),
        ({"image_size": 0}, "image size is 0"),
        ({"shorter_side": -1}, "shorter side is -1"),
        ({"image_size": 8, "kind": "label"}, "Unknown kind of image 'label': choose one of pixels, labels, values"),
    ],
)
def test_settings_out_of_range(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        Decoder("image", **settings)
