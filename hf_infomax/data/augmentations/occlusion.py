"""Occlusion: a rectangle of each image is hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from .base import Augmentation
from .randomness import Draws


class Occlusion(Augmentation):
    """A random rectangle of each image is painted over, such that one block of pixels is hidden as a whole and one stays visible.

    (B, 3, H, W) -> the same shape. The rectangle is `block` pixels or more along both axes; along one of them, drawn at random, it
    leaves `block` pixels or more visible on one side. Sizes are uniform, and so are places among those that do.

    Deep InfoMax (Hjelm et al., 2019, 4.3 and A.6) computes the global vector from such an image and the local map from the whole
    one. Its distribution is "ad-hoc"; the constraint is the paper's, with blocks of 10 x 10, the receptive field of a local feature
    of its CIFAR encoder, so that one feature at least is hidden whole and one is seen whole.

    Args:
        block: side of the two blocks in pixels.
        fill: the colour, for all channels, in [0, 1].

    Raises:
        UsageError: when built, a block below 1 or a colour out of range; when called, images without room for both blocks.

    Example:
        >>> hidden = Occlusion(fill=0.0)(torch.ones(8, 3, 32, 32)) == 0
        >>> bool((hidden.flatten(1).sum(1) >= 3 * 10 * 10).all())
        True
    """

    def __init__(self, block: int = 10, fill: float = 0.5) -> None:
        super().__init__()
        if block < 1 or int(block) != block:
            raise UsageError(f"the block of an occlusion is {block} pixels wide: give a whole number, 1 or more.")
        if not 0 <= fill <= 1:
            raise UsageError(f"an occlusion is painted with {fill}: give a value between 0 and 1.")
        self.block, self.fill = int(block), fill

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        sizes = torch.tensor(images.shape[-2:], device=images.device)  # (2,)
        if min(images.shape[-2:]) < 2 * self.block:
            raise UsageError(
                f"images of {images.shape[-2]}x{images.shape[-1]} pixels have no room for a hidden and a visible block of "
                f"{self.block}: choose a block of at most {min(images.shape[-2:]) // 2}."
            )
        leaves_room = draws.integers(2)[:, None] == torch.arange(2, device=images.device)  # (B, 2), at one axis
        longest = torch.where(leaves_room, sizes - self.block, sizes)
        length = self.block + draws.integers(longest - self.block + 1, 2)  # (B, 2)
        first = self._first(sizes, length, leaves_room, draws)
        inside = [self._between(axis, images, first, length) for axis in (0, 1)]  # (B, H), (B, W)
        hidden = inside[0][:, :, None] & inside[1][:, None, :]  # (B, H, W)
        return images.masked_fill_(hidden.unsqueeze(1), self.fill)

    def _first(self, sizes: Tensor, length: Tensor, leaves_room: Tensor, draws: Draws) -> Tensor:
        """The first hidden pixel (B, 2): any place of the rectangle, or one that leaves a block before it or behind it."""
        places = sizes - length + 1  # (B, 2)
        on_one_side = places - self.block  # those that leave a block behind the rectangle; as many leave one before it
        allowed = torch.where(leaves_room, torch.minimum(places, 2 * on_one_side), places)
        drawn = draws.integers(allowed, 2)
        gap = places - allowed  # the places in the middle that leave no block on either side
        return drawn + gap * (drawn >= on_one_side)

    @staticmethod
    def _between(axis: int, images: Tensor, first: Tensor, length: Tensor) -> Tensor:
        """Which pixels along an axis are in the rectangle, (B, n)."""
        pixel = torch.arange(images.shape[axis - 2], device=images.device)
        return (pixel >= first[:, axis, None]) & (pixel < (first + length)[:, axis, None])

    def extra_repr(self) -> str:
        return f"block={self.block}, fill={self.fill}"
