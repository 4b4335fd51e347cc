"""Label maps as a dataset has them: found, checked, and told how many classes there are."""

from collections.abc import Iterable
from dataclasses import dataclass

import datasets
import torch
from torch import Tensor

from hf_infomax import data
from hf_infomax.models.errors import UsageError

from .metrics import require_classes

#: The label of pixels that do not count, whatever a dataset's own is.
IGNORED = -1
_SHAPES_DIFFER = 0.05  # of the aspect: maps and images that were resized one by one are rounded apart


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of a dataset.

    Args:
        column: an image column of class indices, such as "semantic".
        ignore_index: the label of pixels without a class, such as 255 or 11; it may lie among the classes.
    """

    column: str
    ignore_index: int | None = None

    def __call__(self, maps: Tensor) -> Tensor:
        """(B, 1, H, W) as decoded -> (B, H, W) int64, `IGNORED` where they do not count.

        >>> LabelMaps("semantic", ignore_index=255)(torch.tensor([[[[3, 255]]]], dtype=torch.uint8)).tolist()
        [[[3, -1]]]
        """
        labels = maps.squeeze(1).long()
        return labels if self.ignore_index is None else labels.masked_fill(labels == self.ignore_index, IGNORED)

    def count_classes(self, splits: Iterable[Tensor], num_classes: int | None = None) -> int:
        """`num_classes`, checked against the maps (N, 1, H, W) of all splits; None: the largest label plus one.

        Raises:
            UsageError: a label is no class, or all are ignored.
        """
        found: set[int] = set()
        for maps in splits:
            for part in torch.arange(len(maps)).split(256):
                found.update(self(maps[part]).unique().tolist())
        if self.ignore_index is not None:
            found.discard(IGNORED)
        if not found:
            raise UsageError(f"All pixels of '{self.column}' are ignored: check ignore_index={self.ignore_index}.")
        count = num_classes or max(found) + 1
        require_classes(torch.tensor(sorted(found)), count)
        return count

    def require(self, split: datasets.Dataset, image_column: str, image_size: int, on_corrupt: str = "stop") -> None:
        """Check the column, before images and maps are cut to squares, each from its own centre.

        Raises:
            UsageError: it is missing, holds no images, or maps of another shape than the images.
        """
        data.require_column(split, self.column)
        images = [name for name, feature in split.features.items() if isinstance(feature, datasets.Image)]
        if self.column not in images:
            raise UsageError(
                f"The column '{self.column}' holds no label maps: set data.label_column to one of {', '.join(images)}."
            )
        maps, pixels = (
            data.decode_images(split, name, image_size, kind=kind, on_corrupt=on_corrupt)
            for name, kind in ((self.column, "labels"), (image_column, "pixels"))
        )
        if not torch.equal(maps.indices, pixels.indices):
            return  # rows were skipped: which belong together is seen when the columns are joined
        aspects = (found.original_sizes[:, 1] / found.original_sizes[:, 0] for found in (maps, pixels))  # (N,)
        wrong = (next(aspects) / next(aspects) - 1).abs() > _SHAPES_DIFFER
        if wrong.any():
            row = int(wrong.nonzero()[0])
            sizes = ["x".join(map(str, found.original_sizes[row].flip(0).tolist())) for found in (maps, pixels)]
            raise UsageError(
                f"A label map of {sizes[0]} pixels belongs to an image of {sizes[1]}: the maps of '{self.column}' must have "
                "their images' shape."
            )
