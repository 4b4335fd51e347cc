"""Two views of one image that share as much as one number says: a distance between patches, or a limit of frequencies.

Sliding the number slides the mutual information of the views, which a good pair has neither too much nor too little of
(Tian et al., "What Makes for Good Views for Contrastive Learning?", 2020).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from . import photometry
from .base import Augmentation
from .geometry import Move
from .randomness import Draws
from .sample import Sample

_LEAST_SIGMA = 1e-3  # pixels; every tap but the middle one is 0 from here on


class DistantPatches(Augmentation):
    """Two patches of one image, the second as far down as to the right of the first; side by side, (2 B, 3, size, size).

    v1 starts at (x, y) and v2 at (x + d, y + d), where (x, y) is uniform on all places at which both fit. I(v1; v2) falls
    as d grows; from d = size on, the patches share no pixel. Pixels are not resampled, and other columns follow. In an
    image that is not much larger than size + d, both patches always lie in its corners, and that would be measured along
    with the distance: the supplement of Tian et al. (2020, B.1) takes images of 2,000 pixels for d up to 384, and CMC (Tian
    et al., 2020, 4.4) patches of 64 pixels from d = 64 on.

    Args:
        size: side of a patch in pixels.
        distance: d in pixels, along each axis.

    Raises:
        UsageError: when built, for a size below 1 or a distance below 0; when called, for images that are less than
            size + distance pixels wide or high (on a CPU; elsewhere to look would make the device wait).

    Example:
        >>> DistantPatches(size=32, distance=48)(torch.rand(8, 3, 128, 96)).shape
        torch.Size([16, 3, 32, 32])
    """

    pieces = 2

    def __init__(self, size: int, distance: int) -> None:
        super().__init__()
        if size < 1 or distance < 0 or distance != int(distance):
            raise UsageError(
                f"patches of {size} pixels cannot be {distance} apart: give whole numbers of pixels, a size from 1 and a "
                "distance from 0 on."
            )
        self.size, self.distance = size, int(distance)

    def forward(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, 3, H, W) of any type -> (2 B, 3, size, size) of the same."""
        return self.change(images, Draws.anew(len(images), images.device) if draws is None else draws).to(images.dtype)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        return self.transform(Sample(images), draws).images

    def transform(self, sample: Sample, draws: Draws) -> Sample:
        sizes = sample.extents()
        room = sizes - self.size - self.distance + 1  # (B, 2): places for the first patch, down and across
        self._check(sizes, room)
        first = draws.integers(room, 2)  # (B, 2)
        # Each is read from the whole images in its turn, for these may be large, and two copies of them too many.
        one, other = (sample.moved(self._window(sizes, corner)) for corner in (first, first + self.distance))
        columns = {name: _side_by_side(column, other.columns[name]) for name, column in one.columns.items()}
        return replace(one, images=_side_by_side(one.images, other.images), columns=columns)

    def _window(self, sizes: Tensor, corner: Tensor) -> Move:
        top, left = corner.unbind(1)
        return Move.of(sizes, (self.size, self.size), top=top, left=left)

    def _check(self, sizes: Tensor, room: Tensor) -> None:
        if sizes.device.type != "cpu" or torch.compiler.is_compiling() or not len(sizes) or room.amin() >= 1:
            return
        height, width = sizes[room.amin(1).argmin()].tolist()
        raise UsageError(
            f"patches of {self.size} pixels, {self.distance} apart, do not fit into images of {height}x{width}: decode them "
            f"larger (data.shorter_side={self.size + self.distance} or more), or give a smaller distance."
        )

    def extra_repr(self) -> str:
        return f"size={self.size}, distance={self.distance}"


class FrequencySeparation(Augmentation):
    """An image's low frequencies and its high ones, side by side: (B, 3, H, W) -> (2 B, 3, H, W).

        v1 = Blur(x, sigma)
        v2 = 1/2 + (x - v1) / 2

    with Gaussian blur (Tian et al., 2020, supplement, B.3). What v1 leaves of x lies in [-1, 1], and views are RGB in
    [0, 1]: the affine map takes one range to the other and, being invertible, loses no information, x = v1 + 2 v2 - 1.
    With sigma -> 0 v1 is the image and v2 a plain grey; with a large sigma v1 is nearly flat. I(v1; v2) is largest in
    between, in the paper near 0.7 pixels on STL-10. Draws nothing; the edges are reflected, as by `GaussianBlur`, and the
    taps reach 3 sigma, or the farthest that an image can be reflected.

    Args:
        sigma: standard deviation of the Gaussian in pixels.

    Raises:
        UsageError: when built, for a sigma below 0 or without end.

    Example:
        >>> FrequencySeparation(sigma=1.0)(torch.rand(8, 3, 32, 32)).shape
        torch.Size([16, 3, 32, 32])
    """

    pieces = 2

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if not 0 <= sigma < math.inf:
            raise UsageError(f"the standard deviation of a frequency separation is {sigma}: give pixels from 0 on.")
        self.sigma = sigma

    def kernel_size(self, height: int, width: int) -> int:
        """Taps of the blur for images of that size: odd, at least 3 where the image is, and 3 sigma to either side."""
        return 2 * min(max(1, math.ceil(3 * self.sigma)), height - 1, width - 1) + 1

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        sigma = torch.full((len(images),), max(self.sigma, _LEAST_SIGMA), device=images.device)
        low = photometry.gaussian_blur(images, sigma, self.kernel_size(*images.shape[-2:]))
        return _side_by_side(low, (images - low).mul_(0.5).add_(0.5))

    def transform(self, sample: Sample, draws: Draws) -> Sample:
        images = self.change(sample.unit_images(), draws)
        columns = {name: _side_by_side(column, column) for name, column in sample.columns.items()}
        sizes = None if sample.sizes is None else _side_by_side(sample.sizes, sample.sizes)
        return replace(sample, images=images, columns=columns, sizes=sizes, white=1.0)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"


def _side_by_side(one: Tensor, other: Tensor) -> Tensor:
    """Two of (B, ...) -> (2 B, ...), those of one image next to each other."""
    return torch.stack([one, other], 1).flatten(0, 1)
