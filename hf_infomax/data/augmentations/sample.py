"""The columns of a batch that a geometric augmentation moves together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .geometry import Geometry

# What a column holds -> what a geometry does to it; names of methods of `Geometry`.
KINDS = ("values", "labels", "flow", "normals", "boxes")


@dataclass(frozen=True)
class Sample:
    """Images and what belongs to them.

    Attributes:
        images: (B, 3, H, W), uint8 or floating point in [0, 1]; after a geometric change of uint8, float32 in [0, 255].
        columns: further tensors of B rows.
        kinds: what each of these is, one of `KINDS`.
        sizes: (B, 2) int64, heights and widths of images smaller than their tensor; None where they fill it.
        white: the value of a full channel, by which the images are to be divided to be in [0, 1].
    """

    images: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    sizes: Tensor | None = None
    white: float = 1.0

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the tensor of the images."""
        return tuple(self.images.shape[-2:])

    def extents(self) -> Tensor:
        """(B, 2): heights and widths of the images."""
        if self.sizes is not None:
            return self.sizes
        return torch.tensor(self.canvas, device=self.images.device).expand(len(self.images), 2)

    def unit_images(self) -> Tensor:
        """The images as float32 in [0, 1], written over where they are floating point already."""
        if self.white == 1:
            return self.images
        return self.images.to(torch.float32).div_(self.white)

    def moved(self, geometry: Geometry) -> Sample:
        """Every column as `geometry` maps it; the images then fill their tensor."""
        columns = {name: getattr(geometry, self.kinds[name])(column) for name, column in self.columns.items()}
        return replace(self, images=geometry.values(self.images), columns=columns, sizes=None)

    def select(self, index: slice) -> Sample:
        """The same of some of the images."""
        return replace(
            self,
            images=self.images[index],
            columns={name: column[index] for name, column in self.columns.items()},
            sizes=None if self.sizes is None else self.sizes[index],
        )

    def repeated(self, times: int) -> Sample:
        """Every image and its columns `times` times, side by side, in memory of their own."""
        return replace(
            self,
            images=self.images.repeat_interleave(times, 0),
            columns={name: column.repeat_interleave(times, 0) for name, column in self.columns.items()},
            sizes=None if self.sizes is None else self.sizes.repeat_interleave(times, 0),
        )

    def alone(self) -> Sample:
        """The images without the other columns."""
        return replace(self, columns={}, kinds={})
