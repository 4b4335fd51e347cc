"""In pieces: the patches of an image that jigsaw methods encode one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from .base import Augmentation
from .geometry import Move
from .randomness import Draws
from .sample import Sample


class JigsawPatches(Augmentation):
    """A grid of cells, and from each cell a patch at a random place, so that no patch shows where its neighbour ends.

    (B, 3, S, S) with S = grid * cell -> (B * grid^2, 3, patch, patch): an image's patches side by side, row by row. Any
    type of pixel stays what it is. Augmentations that follow draw for every patch from `draws.split(jigsaw.pieces)`.
    After Noroozi and Favaro (2016); the sizes are those of PIRL (Misra and van der Maaten, 2020, 3.2), which crops and
    resizes to 255 pixels first.

    Shuffled, the patches p_1, ..., p_n of an image stand in the order p_pi(1), ..., p_pi(n), where pi is uniform on all n!
    orders. PIRL puts the features in a random order, which is the same: an encoder sees each patch by itself, so
    f(p)_pi(i) = f(p_pi(i)). Here pi follows, as all that is drawn, from seed, epoch and index alone.

    Args:
        grid: cells in a row, and in a column.
        cell: side of a cell in pixels.
        patch: side of a patch in pixels.
        shuffled: whether each image's patches stand in a random order of its own; else row by row.

    Raises:
        UsageError: when built, for a patch that is larger than its cell or a size below 1; when called, for images that are
            not grid * cell pixels wide and high, or with other columns or with images smaller than their tensor.

    Example:
        >>> JigsawPatches(grid=3, cell=12, patch=9)(torch.rand(8, 3, 36, 36)).shape
        torch.Size([72, 3, 9, 9])
    """

    own_size = True

    def __init__(self, grid: int = 3, cell: int = 85, patch: int = 64, shuffled: bool = False) -> None:
        super().__init__()
        if min(grid, patch) < 1 or patch > cell:
            raise UsageError(
                f"a jigsaw of {grid}x{grid} cells of {cell} pixels cannot give patches of {patch}: give a grid from 1 on, "
                f"and patches of 1 to {cell} pixels."
            )
        self.grid, self.cell, self.patch, self.shuffled = grid, cell, patch, shuffled

    @classmethod
    def scaled(cls, image_size: int, grid: int = 3) -> JigsawPatches:
        """The sizes for a whole view of `image_size` pixels, as PIRL's 85 and 64 are to its 224.

        >>> JigsawPatches.scaled(32)
        JigsawPatches(grid=3, cell=12, patch=9, shuffled=False)
        """
        return cls(grid, cell=round(image_size * 85 / 224), patch=round(image_size * 64 / 224))

    @property
    def size(self) -> int:
        """Side of the images that it takes: 255 for PIRL's."""
        return self.grid * self.cell

    @property
    def pieces(self) -> int:
        """Patches of an image."""
        return self.grid**2

    def forward(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, 3, S, S) of any type -> (B * grid^2, 3, patch, patch) of the same."""
        return self.change(images, Draws.anew(len(images), images.device) if draws is None else draws)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        batch, channels, height, width = images.shape
        if (height, width) != (self.size, self.size):
            raise UsageError(
                f"the jigsaw takes images of {self.size}x{self.size} pixels ({self.grid} cells of {self.cell}), not "
                f"{height}x{width}: crop and resize them to {self.size} first."
            )
        cells = images.view(batch, channels, self.grid, self.cell, self.grid, self.cell)
        cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(
            -1, channels, self.cell, self.cell
        )  # (B * pieces, C, cell, cell)
        top, left = draws.integers(self.cell - self.patch + 1, self.pieces, 2).flatten(0, 1).unbind(1)
        sizes = torch.full((len(cells), 2), self.cell, device=images.device)
        patches = Move.of(sizes, (self.patch, self.patch), top=top, left=left).labels(cells)
        if not self.shuffled:
            return patches
        order = draws.permutation(self.pieces)  # drawn last, so that shuffled or not the patches are the same
        first = torch.arange(batch, device=images.device)[:, None] * self.pieces  # (B, 1), each image's first patch
        return patches[(first + order).flatten()]

    def transform(self, sample: Sample, draws: Draws) -> Sample:
        """Images alone: labels, boxes or flow of a patch would be no label, box or flow of the image that they came with."""
        if sample.columns or sample.sizes is not None:
            what = f"the columns {', '.join(sample.columns)}" if sample.columns else "images smaller than their tensor"
            raise UsageError(f"a jigsaw cannot cut {what} into patches: give it images of one size, and nothing else.")
        return Sample(self.change(sample.images, draws), white=sample.white)

    def extra_repr(self) -> str:
        return f"grid={self.grid}, cell={self.cell}, patch={self.patch}, shuffled={self.shuffled}"
