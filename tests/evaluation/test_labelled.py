"""What can be asked of a split, and how its columns become targets."""

import datasets
import pytest
import torch

from hf_infomax.evaluation import labelled_images, target_names
from hf_infomax.models.errors import UsageError


def test_the_digits_can_be_asked_for_their_class_and_every_factor(digits):
    assert target_names(digits) == ["label", "x", "y", "size", "foreground", "background"]


def test_columns_that_are_no_targets_are_not_asked_for():
    rows = {"text": ["a", "b"], "group": [0, 1], "weight": [0.5, 1.0]}
    types = {
        "text": datasets.Value("string"),
        "group": datasets.ClassLabel(num_classes=2),
        "weight": datasets.Value("float32"),
    }
    assert target_names(datasets.Dataset.from_dict(rows, features=datasets.Features(types))) == ["group", "weight"]


def test_targets_are_read_and_joined(digits):
    few = digits.select(range(20))
    images = labelled_images(few, 32, ["label", "foreground", "x+y"])
    assert images.pixels.shape == (20, 3, 32, 32)
    assert images.targets["label"].tolist() == few["label"][:]
    torch.testing.assert_close(images.targets["foreground"], torch.tensor(few["foreground"][:]))
    torch.testing.assert_close(images.targets["x+y"], torch.tensor([few["x"][:], few["y"][:]]).T)
    with pytest.raises(UsageError, match="'colour'"):
        labelled_images(few, 32, ["colour"])
