import datasets
import pytest
import torch
from PIL import Image

from hf_infomax import UsageError
from hf_infomax.downstream import IGNORED, LabelMaps


def test_what_is_ignored_is_no_class():
    maps = torch.tensor([[[[0, 3, 4]]]], dtype=torch.uint8)
    assert LabelMaps("semantic")(maps).tolist() == [[[0, 3, 4]]]
    assert LabelMaps("semantic", ignore_index=4)(maps).tolist() == [[[0, 3, IGNORED]]]


def test_classes_are_counted_over_all_splits():
    train, test = torch.tensor([0, 1, 255]).view(3, 1, 1, 1), torch.tensor([4, 2]).view(2, 1, 1, 1)
    labels = LabelMaps("semantic", ignore_index=255)
    assert labels.count_classes([train, test]) == 5
    assert labels.count_classes([train, test], num_classes=9) == 9
    assert LabelMaps("semantic").count_classes([train]) == 256
    with pytest.raises(UsageError, match="the value 4 and there are 3 classes"):
        labels.count_classes([train, test], num_classes=3)
    with pytest.raises(UsageError, match="are ignored: check ignore_index=1"):
        LabelMaps("semantic", ignore_index=1).count_classes([torch.ones(2, 1, 4, 4)])


def test_the_column_is_checked(scenes):
    LabelMaps("semantic").require(scenes, "image", 32)
    with pytest.raises(UsageError, match="no column 'classes'"):
        LabelMaps("classes").require(scenes, "image", 32)
    with pytest.raises(UsageError, match=r"'focal' holds no label maps.*depth, normals, semantic"):
        LabelMaps("focal").require(scenes, "image", 32)
    with pytest.raises(UsageError, match="maps of one channel"):
        LabelMaps("normals").require(scenes, "image", 32)


def test_a_map_of_another_shape_is_an_error():
    def rows(size):
        images, maps = [Image.new("RGB", (40, 20))] * 2, [Image.new("L", (40, 20)), Image.new("L", size)]
        features = datasets.Features({"image": datasets.Image(), "semantic": datasets.Image()})
        return datasets.Dataset.from_dict({"image": images, "semantic": maps}, features=features)

    LabelMaps("semantic").require(rows((80, 40)), "image", 16)
    with pytest.raises(UsageError, match="A label map of 20x20 pixels belongs to an image of 40x20"):
        LabelMaps("semantic").require(rows((20, 20)), "image", 16)
