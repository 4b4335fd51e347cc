import numpy as np
import pytest

from hf_infomax.data import colour_digits, load_dataset
from hf_infomax.data.colour_digits import ColourDigits, handwritten_digits, split_instances

NAME = "hf_infomax/colour_digits"


def unit_images(dataset):
    return np.stack([np.asarray(image) for image in dataset["image"]]) / 255  # (n, 32, 32, 3)


def inside_square(dataset):
    """(n, 32, 32) bool: the digit's square, from the columns x, y and size."""
    x, y, size = (np.array(dataset[name])[:, None, None] for name in ("x", "y", "size"))
    across, down = np.arange(32)[None, None, :] + 0.5, np.arange(32)[None, :, None] + 0.5  # pixel centres
    return (abs(across - x) < size / 2) & (abs(down - y) < size / 2)


def test_training_and_test_instances_are_disjoint_and_stratified():
    _, labels = handwritten_digits()
    split = split_instances(labels)
    assert sorted(np.concatenate([split["train"], split["test"]])) == list(range(1797))
    for digit in range(10):
        share = (labels[split["test"]] == digit).sum() / (labels == digit).sum()
        assert 0.19 < share <= 0.2


def test_each_split_is_drawn_from_its_own_instances(monkeypatch):
    drawn = []
    draw_factors = colour_digits.draw_factors

    def recording(*args):
        factors = draw_factors(*args)
        drawn.append(set(factors.instance))
        return factors

    monkeypatch.setattr(colour_digits, "draw_factors", recording)
    next(iter(load_dataset(NAME, "train", streaming=True)))
    next(iter(load_dataset(NAME, "test", streaming=True)))
    train, test = drawn
    assert len(train) > 600
    assert len(test) > 150
    assert train.isdisjoint(test)


def test_published_sizes_and_columns(tmp_path):
    builder = ColourDigits(cache_dir=str(tmp_path))
    images = {split.name: sum(n for _, n in split.gen_kwargs["blocks"]) for split in builder._split_generators(None)}
    assert images == {"train": 20_000, "test": 4_000}
    columns = ["image", "label", "x", "y", "size", "foreground", "background"]
    assert list(builder.info.features) == columns


def test_two_builds_are_the_same_to_the_byte(tmp_path, digits):
    again = ColourDigits(cache_dir=str(tmp_path), train_images=1_100, test_images=10)
    again.download_and_prepare()
    assert again.as_dataset("train").data.table.equals(digits.data.table)


def test_splits_and_blocks_differ(digits):
    test = load_dataset(NAME, "test")
    assert digits[:100]["x"] != test[:100]["x"]
    assert digits[:100]["x"] != digits[1000:1100]["x"]


def test_outside_its_square_an_image_is_background_within_noise(digits):
    outside = ~inside_square(digits)
    background = np.array(digits["background"])[:, None, None]
    error = (unit_images(digits) - background)[outside]
    assert abs(error).max() < 6 * colour_digits.NOISE
    # Colours at 0 and 1 lose half of their noise to clipping, so a little less than its standard deviation.
    assert error.std() == pytest.approx(colour_digits.NOISE, rel=0.1)


def test_the_strongest_ink_has_the_foreground_colour(digits):
    images, rows = unit_images(digits), np.arange(len(digits))
    background, foreground = np.array(digits["background"]), np.array(digits["foreground"])
    distance = abs(images - background[:, None, None]).max(axis=-1).reshape(len(images), -1)  # (n, 1024)
    strongest = images.reshape(len(images), -1, 3)[rows, distance.argmax(axis=1)]  # (n, 3)
    assert np.quantile(abs(strongest - foreground).max(axis=-1), 0.99) < 0.1


def test_factors_cover_their_ranges(digits):
    x, y, size = (np.array(digits[name]) for name in ("x", "y", "size"))
    for centre in (x, y):
        assert (centre - size / 2).min() == 0
        assert (centre + size / 2).max() == 32
    assert set(size) == set(range(16, 29))
    assert set(digits["label"]) == set(range(10))
    contrast = abs(np.array(digits["foreground"]) - np.array(digits["background"])).max(axis=-1)
    assert contrast.min() > 0.4


def test_labels_are_those_of_the_handwriting(digits):
    # Nearest class mean after undoing position, size and colour: far above the 10 % of shuffled labels.
    handwriting, labels = handwritten_digits()
    means = np.stack([handwriting[labels == digit].mean(axis=0) for digit in range(10)])  # (10, 8, 8)
    images = unit_images(digits)[:300]
    correct = 0
    for row, image in zip(digits.select(range(300)), images, strict=True):
        background, foreground = np.array(row["background"]), np.array(row["foreground"])
        ink = (image - background) @ (foreground - background) / ((foreground - background) ** 2).sum()  # (32, 32)
        cell = row["size"] / 8
        left, top = row["x"] - row["size"] / 2, row["y"] - row["size"] / 2
        centres = (np.arange(8) + 0.5) * cell
        small = ink[np.ix_((top + centres).astype(int), (left + centres).astype(int))]  # (8, 8)
        correct += ((means - small) ** 2).sum(axis=(1, 2)).argmin() == row["label"]
    assert correct / 300 > 0.75


def test_a_stream_gives_the_same_images(digits):
    stream = load_dataset(NAME, "train", streaming=True)
    assert stream.num_shards == 2
    last = list(stream.select_columns(["x", "foreground"]))[-1]
    assert last == {"x": digits[-1]["x"], "foreground": digits[-1]["foreground"]}
