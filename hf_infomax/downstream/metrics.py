"""Semantic segmentation, measured: pixels counted class by class over a whole split, then mean IoU and pixel accuracy."""

from typing import NamedTuple

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from .requirements import segmentation_models

#: The label that the library is given for what does not count; no class has it.
_IGNORED = -1


class SegmentationScores(NamedTuple):
    """Fractions in [0, 1]."""

    mean_iou: float
    pixel_accuracy: float
    iou: Tensor  #: (classes,); NaN for a class that neither the truth nor the prediction has


def count_pixels(predicted: Tensor, labels: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Pixels of a batch by class; the counts of batches, and of processes, add up.

    Args:
        predicted: (B, H, W) classes.
        labels: (B, H, W) true classes, 0 to `num_classes` - 1, or `ignore_index`, which may be one of these.
        num_classes: two at least.
        ignore_index: pixels with this label count nowhere, whatever is predicted there.

    Returns:
        (4, num_classes) int64: true positives, false positives, false negatives, true negatives.

    Raises:
        UsageError: maps of different sizes, a label that is no class, or fewer than two classes.

    >>> count_pixels(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 1, 0]]]), num_classes=2).tolist()
    [[1, 1], [0, 1], [1, 0], [1, 1]]
    """
    if num_classes < 2:  # the library's histogram would have no width
        raise UsageError(f"There are {num_classes} classes to tell apart: give two or more.")
    if predicted.shape != labels.shape:
        raise UsageError(
            f"Predictions have shape {tuple(predicted.shape)} and labels {tuple(labels.shape)}: bring them to one size."
        )
    labels = labels.long()
    labels = labels.masked_fill(labels == ignore_index, _IGNORED) if ignore_index is not None else labels
    require_classes(labels[labels != _IGNORED] if ignore_index is not None else labels, num_classes)
    counts = segmentation_models().metrics.get_stats(
        predicted.long(), labels, mode="multiclass", ignore_index=_IGNORED, num_classes=num_classes
    )
    return torch.stack([count.sum(dim=0) for count in counts])  # each (B, classes)


def require_classes(labels: Tensor, num_classes: int) -> None:
    """A `UsageError` for labels outside of 0 to `num_classes` - 1; those to be ignored are left out by the caller."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise UsageError(
            f"A label map holds the value {int(wrong[0])} and there are {num_classes} classes: "
            "set num_classes to the largest label plus one, or ignore_index to the label of pixels without a class."
        )


def segmentation_scores(counts: Tensor) -> SegmentationScores:
    """Mean IoU and pixel accuracy of a whole split.

    IoU_c = TP_c / (TP_c + FP_c + FN_c), of counts over all pixels of all images, not image by image. The mean IoU is the plain
    mean over the classes that are present, in the truth or in the prediction: one that is predicted somewhere and true nowhere
    counts with 0, one that is neither is left out. Pixel accuracy is the part of all pixels whose class is right,
    sum_c TP_c / sum_c (TP_c + FN_c). Ignored pixels are in none of these.

    Args:
        counts: (4, classes), the sum of what `count_pixels` gives.

    Raises:
        UsageError: no pixel was counted.

    >>> counts = count_pixels(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 1, 0]]]), num_classes=3)
    >>> scores = segmentation_scores(counts)
    >>> round(scores.mean_iou, 3), round(scores.pixel_accuracy, 3), scores.iou.tolist()
    (0.5, 0.667, [0.5, 0.5, nan])
    """
    if not int(counts[0].sum() + counts[2].sum()):
        raise UsageError("There is no pixel to measure: all labels are ignored, check ignore_index.")
    metrics = segmentation_models().metrics
    cells = counts[:, None]  # (4, 1, classes), as of one image
    iou = metrics.iou_score(*cells, reduction="none", zero_division=torch.nan)[0]
    # The library's "accuracy" also counts, for every class, the pixels that are rightly not of it.
    accuracy = metrics.recall(*cells, reduction="micro")
    return SegmentationScores(float(iou.nanmean()), float(accuracy), iou)
