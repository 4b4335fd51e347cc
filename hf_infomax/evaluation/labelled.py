"""Images with what is asked of them: a split of a dataset -> pixels, and targets by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import datasets
import torch
from datasets import Dataset
from torch import Tensor

from hf_infomax import data


@dataclass(frozen=True)
class LabelledImages:
    """A split, decoded: `pixels` (N, 3, H, W) uint8, and each target (N,) int64 for classes or (N, d) float32 for factors."""

    pixels: Tensor
    targets: Mapping[str, Tensor]


def target_names(split: Dataset) -> list[str]:
    """What can be asked of a split: its class labels, then its real-valued columns and lists of such.

    The label comes first. A dataset without any column of these kinds gives an empty list.
    """
    label = data.find_label_column(split)
    found = [label] if label else []
    for name, feature in split.features.items():
        inner = feature.feature if isinstance(feature, datasets.List) else feature
        if name not in found and isinstance(inner, datasets.Value) and inner.dtype.startswith(("float", "int")):
            found.append(name)
    return found


def labelled_images(
    split: Dataset, image_size: int, targets: Sequence[str], image_column: str | None = None, on_corrupt: str = "stop"
) -> LabelledImages:
    """Decode a split and read its targets.

    Args:
        split: as `hf_infomax.data.load_dataset` gives it.
        image_size: side in pixels.
        targets: columns to read; "x+y" joins two real-valued columns into one target.
        image_column, on_corrupt: as in `hf_infomax.data.decode_images`.

    Raises:
        UsageError: a column is missing, or an image is corrupt.
    """
    column = data.find_image_column(split, image_column)
    decoded = data.decode_images(split, column, image_size, on_corrupt=on_corrupt)
    columns = {}
    for name in targets:
        features = [data.require_column(split, part) for part in name.split("+")]
        parts = [torch.tensor(split[part][:])[decoded.indices] for part in name.split("+")]
        if isinstance(features[0], datasets.ClassLabel) or name == data.find_label_column(split):
            columns[name] = parts[0].long()
        else:
            columns[name] = torch.cat([part.float().reshape(len(part), -1) for part in parts], dim=1)  # (N, d)
    return LabelledImages(decoded.pixels, columns)
