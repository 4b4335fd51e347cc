from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_infomax.data import find_image_column, find_label_column, load_dataset, require_column
from hf_infomax.models.errors import UsageError

NAME = "hf_infomax/colour_digits"
CIFAR10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"


def fails_with(*parts):
    """One sentence on one line that holds every part."""
    return pytest.raises(UsageError, match="(?s)^" + "".join(f"(?=.*{part})" for part in parts) + "[^\n]*$")


@pytest.fixture
def image_folder(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label in ("cat", "dog"):
            folder = tmp_path / "pets" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pets"


def test_embedded_splits_and_slices(digits):
    assert len(digits) == 1_100
    assert load_dataset(NAME, "train[:7]")["x"] == digits[:7]["x"]
    assert load_dataset(NAME, "train[90%:]")["x"] == digits[990:]["x"]
    assert len(load_dataset(NAME, "train+test")) == 1_400


def test_embedded_datasets_never_reach_the_hub(monkeypatch):
    def asked(*args, **kwargs):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(datasets, "load_dataset_builder", asked)
    monkeypatch.setattr(datasets, "load_dataset", asked)
    load_dataset(NAME, "test")
    load_dataset(NAME, "test", streaming=True)
    with fails_with("hf_infomax/color_digits", "choose one of hf_infomax/colour_digits"):
        load_dataset("hf_infomax/color_digits", "train")


def test_local_folder_of_images(image_folder):
    dataset = load_dataset(str(image_folder), "train[:4]")
    assert len(dataset) == 4
    assert find_image_column(dataset) == "image"
    assert find_label_column(dataset) == "label"
    stream = load_dataset(str(image_folder), "test", streaming=True)
    assert len(list(stream)) == 4


def test_local_folder_of_parquet(tmp_path, digits):
    (tmp_path / "set").mkdir()
    digits.select(range(5)).to_parquet(str(tmp_path / "set" / "train-00000-of-00001.parquet"))
    dataset = load_dataset(str(tmp_path / "set"), "train")
    assert dataset["x"] == digits[:5]["x"]
    assert find_image_column(dataset) == "image"


@pytest.mark.parametrize("split", ["valid", "train[", "valid[:10]", "train[:500%]"])
def test_unknown_split_lists_the_splits(split, image_folder):
    for name in (NAME, str(image_folder)):
        with fails_with("has no split", "its splits are train, test"):
            load_dataset(name, split)


def test_a_stream_takes_whole_splits_only(image_folder):
    for name in (NAME, str(image_folder)):
        for split in ("valid", "train[:5]"):
            with fails_with("no split", "train, test", "streaming=false"):
                load_dataset(name, split, streaming=True)


def test_an_empty_slice_is_an_error():
    with fails_with("is empty"):
        load_dataset(NAME, "train[50:20]")


def test_unknown_datasets(tmp_path):
    with fails_with("folder '/no/such/folder' does not exist"):
        load_dataset("/no/such/folder", "train")
    with fails_with("folder './pets' does not exist"):
        load_dataset("./pets", "train")
    with fails_with("has no data files"):
        load_dataset(str(tmp_path), "train")
    with fails_with("someone/something", "Hub cannot be asked", "hf_infomax/colour_digits"):
        load_dataset("someone/something", "train")
    with fails_with("neither a folder here nor a dataset on the Hub"):
        load_dataset("pets/of/mine", "train")


def test_unknown_configuration(image_folder):
    for name in (NAME, str(image_folder)):
        with fails_with("cannot be loaded", "'large' not found", "default"):
            load_dataset(name, "train", config="large")


def test_a_broken_file_is_named_as_such(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    for streaming in (False, True):
        with fails_with("cannot be read", "corrupted"):
            load_dataset(str(tmp_path), "train", streaming=streaming)


def test_require_column_lists_the_columns(digits):
    assert require_column(digits, "label").num_classes == 10
    with fails_with("no column 'colour'", "image, label, x, y, size, foreground, background"):
        require_column(digits, "colour")


def test_find_image_column(digits):
    stream = load_dataset(NAME, "train", streaming=True)
    for dataset in (digits, stream):
        assert find_image_column(dataset) == "image"
        assert find_image_column(dataset, "image") == "image"
        with fails_with("no column 'img': its columns of images are image."):
            find_image_column(dataset, "img")
        with fails_with("'label' holds no images: its columns of images are image."):
            find_image_column(dataset, "label")
        with fails_with("no column of the dataset holds images", "label"):
            find_image_column(dataset.remove_columns("image"))


def test_find_label_column(digits):
    assert find_label_column(digits) == "label"
    assert find_label_column(digits, "size") == "size"
    assert find_label_column(digits.remove_columns("label")) is None
    assert find_label_column(digits.rename_column("label", "digit")) == "digit"
    with fails_with("no column 'class'"):
        find_label_column(digits, "class")


def test_label_columns_without_classes():
    def dataset(**features):
        return datasets.Dataset.from_dict({name: [] for name in features}, features=datasets.Features(features))

    classes, number, mask = datasets.ClassLabel(names=["a", "b"]), datasets.Value("int64"), datasets.Image()
    assert find_label_column(dataset(image=mask, labels=number)) == "labels"
    assert find_label_column(dataset(coarse_label=classes, fine_label=classes)) == "fine_label"
    assert find_label_column(dataset(label=mask)) is None


def test_a_stream_of_unknown_columns(digits):
    stream = digits.to_iterable_dataset().map(lambda row: row)
    assert stream.features is None
    with fails_with("does not say which columns"):
        find_image_column(stream)


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="the shared data is not beside the repository")
def test_real_images_from_parquet():
    dataset = load_dataset(str(CIFAR10), "test[:3]")
    assert (find_image_column(dataset), find_label_column(dataset)) == ("image", "label")
