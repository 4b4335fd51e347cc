import pytest
import torch

from hf_infomax import UsageError
from hf_infomax.downstream import IGNORED, plot_segmentations
from hf_infomax.downstream.figures import class_colours
from tests.evaluation.looks import assert_is_a_picture, images


@pytest.mark.parametrize(("count", "num_classes"), [(1, 4), (6, 40)])
def test_images_stand_above_their_maps(count, num_classes, tmp_path):
    labels = torch.randint(num_classes, (count, 8, 8))
    labels[0, 0] = IGNORED
    path = plot_segmentations(
        images(count), labels, labels.flip(-1), num_classes, tmp_path / "s.png", "trained, from L"
    )
    assert_is_a_picture(path)


def test_few_classes_have_colours_of_their_own():
    for count in (2, 6, 11, 20):
        assert len({tuple(colour) for colour in class_colours(count)}) == count


def test_mistakes_are_one_sentence(tmp_path):
    maps = torch.zeros(2, 8, 8, dtype=torch.long)
    with pytest.raises(UsageError, match="nothing to draw"):
        plot_segmentations(images(0), maps[:0], maps[:0], 3, tmp_path / "s.png", "")
    with pytest.raises(UsageError, match="3 images, 2 label maps"):
        plot_segmentations(images(3), maps, maps, 3, tmp_path / "s.png", "")
