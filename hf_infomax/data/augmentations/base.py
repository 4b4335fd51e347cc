"""What every augmentation is: a module that changes a batch, each image by random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from hf_infomax.models.errors import UsageError

from .geometry import Geometry
from .randomness import Draws
from .sample import Sample

Range = tuple[float, float]


class Augmentation(nn.Module):
    """What all share: uint8 or floating point, and where the random numbers come from.

    Attributes:
        pieces: images that it makes of each, side by side; what follows draws for every one from `draws.split(pieces)`.
        own_size: whether these are of a size of their own, as the patches of a jigsaw are, and not of the view's.
    """

    pieces = 1
    own_size = False

    def forward(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, 3, H, W) uint8, or floating point in [0, 1] -> the same type, changed."""
        if draws is None:
            draws = Draws.anew(len(images), images.device)
        if images.dtype == torch.uint8:
            return (self.change(images.to(torch.float32) / 255, draws) * 255).round_().clamp_(0, 255).to(torch.uint8)
        return self.change(images.to(torch.float32, copy=True), draws).to(images.dtype)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        """(B, 3, H, W) floating point in [0, 1] -> changed; may write into its input, for new memory costs more."""
        raise NotImplementedError

    def transform(self, sample: Sample, draws: Draws) -> Sample:
        """All columns of a batch -> changed; an augmentation of colours changes the images alone."""
        return replace(sample, images=self.change(sample.unit_images(), draws), white=1.0)


class GeometricAugmentation(Augmentation):
    """An augmentation that moves pixels, and does to the other columns what it did to the images."""

    def geometry(self, draws: Draws, sizes: Tensor, canvas: tuple[int, int]) -> Geometry:
        """The map of each image: `sizes` (B, 2) are their heights and widths, `canvas` that of the tensor they lie in."""
        raise NotImplementedError

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        return self.transform(Sample(images), draws).images

    def transform(self, sample: Sample, draws: Draws) -> Sample:
        return sample.moved(self.geometry(draws, sample.extents(), sample.canvas))


def on_some(images: Tensor, chosen: Tensor, change: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """`change(images, *parameters)` of the chosen (B,), written into `images`; the others stay as they are.

    On a CPU only the chosen are computed; elsewhere, and when compiled, all are, for to ask how many there are would
    make the device wait.
    """
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(chosen.view(-1, 1, 1, 1), change(images, *parameters), images)
    index = chosen.nonzero().squeeze(1)
    if len(index) == 0:
        return images
    if not images.is_contiguous():
        images = images.contiguous()
    some = (tensor.index_select(0, index) for tensor in (images, *parameters))
    _rows(images).index_copy_(0, index, _rows(change(*some)))
    return images


def _rows(images: Tensor) -> Tensor:
    """Images as rows of elements of 16 bytes, where that can be: copied element by element, they take a quarter of the time."""
    rows = images.contiguous().flatten(1)
    if images.requires_grad or rows.shape[1] * rows.element_size() % 16:
        return rows
    return rows.view(torch.complex128)


def probability_of(what: str, value: float) -> float:
    """`value`, checked to be a probability."""
    if not 0 <= value <= 1:
        raise UsageError(f"the probability of {what} is {value}: give a number between 0 and 1.")
    return value


def ordered(what: str, bounds: Range, least: float, most: float) -> Range:
    """`bounds`, checked to be two numbers in order between `least` and `most`."""
    low, high = bounds
    if not least <= low <= high <= most:
        raise UsageError(
            f"the {what} is between {low} and {high}: give two numbers in order, from {least:g} to {most:g}."
        )
    return low, high
