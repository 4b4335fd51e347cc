"""Where to look: random crops and flips, which every column of a sample follows."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from .base import GeometricAugmentation, Range, on_some, ordered, probability_of
from .geometry import Crop, Geometry, Move
from .randomness import Draws, alike
from .sample import Sample


class RandomResizedCrop(GeometricAugmentation):
    """A box of random area and aspect, resized (bilinear, antialiased) to `size` pixels.

    The area is uniform on `scale` as a part of the image's, the aspect log-uniform on `ratio`, the place uniform. As in
    torchvision a box that does not fit is drawn again; after ten the largest central box of an allowed aspect is taken.

    Args:
        size: side of the result in pixels.
        scale: bounds of the area; the lower one is the crop bound c of InfoMin (Tian et al., 2020, C.2).
        ratio: bounds of width / height.

    Raises:
        UsageError: when built, bounds out of order or out of range.

    Example:
        >>> RandomResizedCrop(size=32, scale=(0.2, 1.0))(torch.rand(8, 3, 48, 40)).shape
        torch.Size([8, 3, 32, 32])
    """

    ATTEMPTS = 10

    def __init__(self, size: int, scale: Range = (0.08, 1.0), ratio: Range = (3 / 4, 4 / 3)) -> None:
        super().__init__()
        self.size = size
        self.scale = ordered("area of a crop", scale, 0, 1)
        self.ratio = ordered("aspect of a crop", ratio, 0, math.inf)
        if self.scale[0] == 0 or self.ratio[0] == 0:
            raise UsageError("the area and the aspect of a crop must be above 0: raise the lower bound.")

    def geometry(self, draws: Draws, sizes: Tensor, canvas: tuple[int, int]) -> Geometry:
        height, width = sizes.to(torch.float32).unbind(1)  # (B,)
        area = draws.uniform(self.ATTEMPTS, low=self.scale[0], high=self.scale[1]) * (height * width)[:, None]
        aspect = alike(
            torch.exp, draws.uniform(self.ATTEMPTS, low=math.log(self.ratio[0]), high=math.log(self.ratio[1]))
        )
        widths, heights = (area * aspect).sqrt_().round_(), (area / aspect).sqrt_().round_()  # (B, attempts)
        fits = (widths >= 1) & (widths <= width[:, None]) & (heights >= 1) & (heights <= height[:, None])
        first = fits.to(torch.uint8).argmax(1, keepdim=True)  # the first that fits
        fits = fits.any(1)
        central_h, central_w = self._central(height, width)
        box_h = torch.where(fits, heights.gather(1, first).squeeze(1), central_h)
        box_w = torch.where(fits, widths.gather(1, first).squeeze(1), central_w)
        place = draws.uniform(2)
        place = torch.where(fits[:, None], place, 0.5)
        top = ((height - box_h + fits) * place[:, 0]).floor_()
        left = ((width - box_w + fits) * place[:, 1]).floor_()
        return Crop.of(top, left, box_h, box_w, (self.size, self.size))

    def _central(self, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """The largest box of an allowed aspect, (B,) and (B,)."""
        low, high = self.ratio
        aspect = width / height
        return (
            torch.where(aspect < low, (width / low).round(), height),
            torch.where(aspect > high, (height * high).round(), width),
        )

    def extra_repr(self) -> str:
        return f"size={self.size}, scale={self.scale}, ratio={self.ratio}"


class RandomCrop(GeometricAugmentation):
    """A square of `size` pixels at a random place, after reflection padding; its pixels are not resampled.

    With padding 4 and a flip this is the light augmentation of residual networks on CIFAR (He et al., 2016, 4.2), with
    reflection in place of zeros; without padding, Deep InfoMax's 64-pixel crops of STL-10.

    Args:
        size: side of the crop in pixels.
        padding: pixels added on every side, by reflection that does not repeat the edge.

    Raises:
        UsageError: when built, for a padding below 0; when called, for images too small for the padding or the crop.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        super().__init__()
        if padding < 0 or padding != int(padding):
            raise UsageError(f"the padding is {padding}: give a whole number of pixels from 0 on.")
        self.size, self.padding = size, int(padding)

    def geometry(self, draws: Draws, sizes: Tensor, canvas: tuple[int, int]) -> Geometry:
        room = sizes + 2 * self.padding - self.size + 1  # (B, 2): places for the crop, down and across
        self._check(sizes, room)
        top, left = (draws.integers(room, 2) - self.padding).unbind(1)
        return Move.of(sizes, (self.size, self.size), top=top, left=left)

    def _check(self, sizes: Tensor, room: Tensor) -> None:
        if sizes.device.type != "cpu" or torch.compiler.is_compiling():  # to look would make the device wait
            return
        height, width = sizes.amin(0).tolist()
        if room.amin() < 1:
            raise UsageError(
                f"crops of {self.size} pixels do not fit into images of {height}x{width} with a padding of "
                f"{self.padding}: use larger images or more padding."
            )
        if self.padding >= min(height, width):
            raise UsageError(
                f"a padding of {self.padding} pixels cannot be reflected from images of {height}x{width}: use less."
            )

    def extra_repr(self) -> str:
        return f"size={self.size}, padding={self.padding}"


class HorizontalFlip(GeometricAugmentation):
    """Left and right exchanged, with `probability`."""

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        self.probability = probability_of("flip", probability)

    def geometry(self, draws: Draws, sizes: Tensor, canvas: tuple[int, int]) -> Geometry:
        return Move.of(sizes, canvas, mirrored=draws.happens(self.probability))

    def transform(self, sample: Sample, draws: Draws) -> Sample:
        if sample.columns or sample.sizes is not None:
            return super().transform(sample, draws)
        # Images alone: to exchange the chosen is cheaper than to gather all.
        flipped = on_some(sample.images, draws.happens(self.probability), lambda images: images.flip(-1))
        return replace(sample, images=flipped)

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
