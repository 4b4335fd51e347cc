"""Colour spaces as views: deterministic, batched, differentiable conversions of RGB, and their splits by channel.

RGB arrives in [0, 1] as (..., 3, H, W); every conversion returns scikit-image's ranges. The matrices are applied as weighted sums
of planes rather than as a matmul, so autocast cannot round them to bfloat16.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE_D65 = (0.95047, 1.0, 1.08883)
_RGB_TO_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))


def _mix(planes: Tensor, matrix: tuple[tuple[float, ...], ...]) -> tuple[Tensor, ...]:
    """Weighted sums of the three planes (..., 3, H, W), one for each row of the matrix: 3 x (..., H, W)."""
    first, second, third = planes.unbind(-3)
    return tuple(a * first + b * second + c * third for a, b, c in matrix)


def rgb_to_xyz(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> CIE XYZ under D65, (..., 3, H, W) -> (..., 3, H, W)."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp_min(0.04).pow(2.4), rgb / 12.92)
    return torch.stack(_mix(linear, _RGB_TO_XYZ), dim=-3)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> CIE L*a*b* under D65: L in [0, 100], a and b about [-108, 98]; (..., 3, H, W) -> (..., 3, H, W).

    The space of CMC's views {L, ab}: L is how bright, ab is which colour.

    >>> import torch
    >>> rgb_to_lab(torch.ones(3, 1, 1)).flatten().round()  # white
    tensor([100.,  -0.,   0.])
    """
    relative = [plane / white for plane, white in zip(rgb_to_xyz(rgb).unbind(-3), _WHITE_D65, strict=True)]
    x, y, z = (  # clamped inside the root, whose gradient at zero is infinite
        torch.where(t > 0.008856, t.clamp_min(0.008856).pow(1 / 3), 7.787 * t + 16 / 116) for t in relative
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] -> Y'CbCr of ITU-R BT.601: Y in [16, 235], Cb and Cr in [16, 240]; (..., 3, H, W) -> (..., 3, H, W).

    >>> import torch
    >>> rgb_to_ycbcr(torch.ones(3, 1, 1)).flatten()  # white
    tensor([235., 128., 128.])
    """
    y, cb, cr = _mix(rgb, _RGB_TO_YCBCR)
    return torch.stack([y + 16, cb + 128, cr + 128], dim=-3)


def _identity(rgb: Tensor) -> Tensor:
    return rgb


@dataclass(frozen=True)
class ColorSpace:
    """A conversion from RGB with its channels' names and the range of each, by which views are scaled to [-1, 1]."""

    convert: Callable[[Tensor], Tensor]
    channels: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def split(self, view: str) -> tuple[int, ...] | None:
        """The channels that a view's name spells ("ab" -> (1, 2), "CbCr" -> (1, 2)), or None if it spells none."""
        indices, rest = [], view
        while rest:
            index = next((i for i, name in enumerate(self.channels) if rest.startswith(name)), None)
            if index is None or index in indices:
                return None
            indices.append(index)
            rest = rest.removeprefix(self.channels[index])
        return tuple(indices) or None


#: name -> space; the ranges are those of all sRGB colours.
COLOR_SPACES: dict[str, ColorSpace] = {
    "rgb": ColorSpace(_identity, ("R", "G", "B"), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "lab": ColorSpace(rgb_to_lab, ("L", "a", "b"), (0.0, -86.183, -107.857), (100.0, 98.233, 94.478)),
    "ycbcr": ColorSpace(rgb_to_ycbcr, ("Y", "Cb", "Cr"), (16.0, 16.0, 16.0), (235.0, 240.0, 240.0)),
}
