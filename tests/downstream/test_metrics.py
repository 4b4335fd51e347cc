import math

import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score

from hf_infomax import UsageError
from hf_infomax.downstream import count_pixels, segmentation_scores


def naive(predicted, labels, num_classes, ignore_index):
    """Pixel by pixel."""
    both, either, right, counted = [0] * num_classes, [0] * num_classes, 0, 0
    for guess, truth in zip(predicted.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if truth == ignore_index:
            continue
        counted += 1
        right += guess == truth
        both[truth] += guess == truth
        for name in {guess, truth}:
            either[name] += 1
    present = [a / b for a, b in zip(both, either, strict=True) if b]
    return sum(present) / len(present), right / counted


@pytest.mark.parametrize(("num_classes", "ignore_index"), [(2, None), (6, 255), (11, 11), (6, 0), (150, None)])
def test_as_pixel_by_pixel_and_as_scikit_learn(num_classes, ignore_index):
    labels = torch.randint(num_classes, (6, 9, 7))
    predicted = torch.where(torch.rand(labels.shape) < 0.5, labels, torch.randint(num_classes, labels.shape))
    if ignore_index is not None:
        labels[torch.rand(labels.shape) < 0.2] = ignore_index
    # in parts, as the batches of a split
    counts = sum(
        count_pixels(*part, num_classes, ignore_index) for part in zip(predicted.split(4), labels.split(4), strict=True)
    )
    scores = segmentation_scores(counts)
    assert (scores.mean_iou, scores.pixel_accuracy) == pytest.approx(
        naive(predicted, labels, num_classes, ignore_index)
    )
    kept = labels != ignore_index if ignore_index is not None else torch.ones_like(labels, dtype=torch.bool)
    truth, guess = labels[kept].numpy(), predicted[kept].numpy()
    assert scores.mean_iou == pytest.approx(jaccard_score(truth, guess, average="macro"))
    assert scores.pixel_accuracy == pytest.approx(accuracy_score(truth, guess))


def test_the_mean_is_over_classes_that_are_true_or_predicted_somewhere():
    labels = torch.zeros(1, 2, 2, dtype=torch.uint8)
    scores = segmentation_scores(count_pixels(torch.tensor([[[0, 0], [0, 2]]]), labels, num_classes=4))
    assert scores.mean_iou == pytest.approx((0.75 + 0) / 2)
    assert [math.isnan(value) for value in scores.iou.tolist()] == [False, True, False, True]
    assert scores.pixel_accuracy == 0.75


def test_mistakes_are_one_sentence():
    maps = torch.zeros(1, 2, 2, dtype=torch.long)
    with pytest.raises(UsageError, match=r"the value 7 and there are 3 classes: set num_classes"):
        count_pixels(maps, maps + 7, num_classes=3)
    with pytest.raises(UsageError, match="the value -1"):
        count_pixels(maps, maps - 1, num_classes=3)
    with pytest.raises(UsageError, match="bring them to one size"):
        count_pixels(maps, maps[:, :1], num_classes=3)
    with pytest.raises(UsageError, match="two or more"):
        count_pixels(maps, maps, num_classes=1)
    with pytest.raises(UsageError, match="all labels are ignored"):
        segmentation_scores(count_pixels(maps, maps, num_classes=2, ignore_index=0))
