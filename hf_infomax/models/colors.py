"""Colour spaces as views: deterministic, batched, differentiable conversions of RGB, and their splits by channel.

RGB arrives in [0, 1], floating point, as (..., 3, H, W); every conversion returns scikit-image's ranges, in operations that
autocast leaves in float32. The curves have no branches: below its knee each goes on along a straight line, as
`power(max(t, knee)) + slope (t - max(t, knee))`. So gradients are finite at black, and there is no mask, at which a CPU is slow;
and a power is 2^(p log2 t), which takes half as long as `pow` there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Matrix = tuple[tuple[float, float, float], ...]

# One row for each channel of the result, with weights of R, G and B (of X, Y and Z).
_LINEAR_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_D65 = (0.95047, 1.0, 1.08883)
_LINEAR_TO_RELATIVE_XYZ = tuple(
    tuple(weight / white for weight in row) for row, white in zip(_LINEAR_TO_XYZ, _D65, strict=True)
)
_ROOTS_TO_LAB = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))
_RGB_TO_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_RGB_TO_YDBDR = ((0.299, 0.587, 0.114), (-0.450, -0.883, 1.333), (-1.333, 1.116, 0.217))
_RGB_TO_YUV = (
    (0.299, 0.587, 0.114),
    (-0.14714119, -0.28886916, 0.43601035),
    (0.61497538, -0.51496512, -0.10001026),
)
_ABSORBANCE_TO_HED = (  # transposed inverse of the stains' (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
    (1.87798274, -0.06590806, -0.60190736),
    (-1.00767869, 1.13473037, -0.48041419),
    (-0.55611582, -0.1355218, 1.57358807),
)
_LOG2_TO_HED = tuple(tuple(weight / math.log2(1e-6) for weight in row) for row in _ABSORBANCE_TO_HED)


def _mix(planes: Tensor, matrix: Matrix) -> Tensor:
    """matrix @ planes over the channels, (..., 3, H, W) -> (..., 3, H, W).

    Sums of weighted planes rather than a matmul, which autocast would round to bfloat16 and a GPU may round to TF32.
    """
    weights = planes.new_tensor(matrix).T[..., None, None]  # (3, 3, 1, 1), the first index that of the plane
    first, second, third = planes.contiguous().split(1, dim=-3)  # (..., 1, H, W); strided, they are slow
    return (first * weights[0]).addcmul_(second, weights[1]).addcmul_(third, weights[2])


def _shift(planes: Tensor, offset: tuple[float, float, float]) -> Tensor:
    """Add a number to each channel, in place."""
    return planes.add_(planes.new_tensor(offset)[:, None, None])


def rgb_to_linear_rgb(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> intensities in [0, 1]: ((c + 0.055) / 1.055)^2.4 above 0.04045, c / 12.92 below (IEC 61966-2-1).

    (..., 3, H, W) -> (..., 3, H, W).

    >>> import torch
    >>> rgb_to_linear_rgb(torch.full((3, 1, 1), 0.5)).flatten()  # a middle grey reflects a fifth of the light
    tensor([0.2140, 0.2140, 0.2140])
    """
    curved = rgb.clamp_min(0.04045)
    power = (curved + 0.055).log2_().mul_(2.4).exp2_()
    return (rgb - curved).mul_(1 / 12.92).add_(power, alpha=1.055**-2.4)


def rgb_to_xyz(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> CIE XYZ under D65: `rgb_to_linear_rgb` times the matrix of its primaries (CIE 1931, 2 degrees).

    X in [0, 0.951], Y in [0, 1], Z in [0, 1.089]; (..., 3, H, W) -> (..., 3, H, W).

    >>> import torch
    >>> rgb_to_xyz(torch.ones(3, 1, 1)).flatten()  # white
    tensor([0.9505, 1.0000, 1.0888])
    """
    return _mix(rgb_to_linear_rgb(rgb), _LINEAR_TO_XYZ)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> CIE L*a*b* under D65: L in [0, 100], a in [-86.2, 98.2], b in [-107.9, 94.5].

    L = 116 f(Y) - 16, a = 500 (f(X) - f(Y)), b = 200 (f(Y) - f(Z)) of XYZ relative to white, f(t) = t^(1/3) above (6/29)^3 and its
    tangent below (CIE 15:2004; scikit-image's 0.008856 and 7.787 are roundings). (..., 3, H, W) -> (..., 3, H, W).
    The space of CMC's views {L, ab}: L is how bright, ab is which colour.

    >>> import torch
    >>> rgb_to_lab(torch.ones(3, 1, 1)).flatten().round()  # white
    tensor([100.,  -0.,   0.])
    """
    relative = _mix(rgb_to_linear_rgb(rgb), _LINEAR_TO_RELATIVE_XYZ)
    curved = relative.clamp_min((6 / 29) ** 3)
    root = curved.log2().mul_(1 / 3).exp2_()
    roots = (relative - curved).mul_((29 / 6) ** 2 / 3).add_(root)
    return _shift(_mix(roots, _ROOTS_TO_LAB), (-16.0, 0.0, 0.0))


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] -> Y'CbCr, the digital code of ITU-R BT.601: Y in [16, 235], Cb and Cr in [16, 240].

    (..., 3, H, W) -> (..., 3, H, W). `rgb_to_yuv` and `rgb_to_ydbdr` have the same channels up to scales.

    >>> import torch
    >>> rgb_to_ycbcr(torch.ones(3, 1, 1)).flatten()  # white
    tensor([235., 128., 128.])
    """
    return _shift(_mix(rgb, _RGB_TO_YCBCR), (16.0, 128.0, 128.0))


def rgb_to_ydbdr(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] -> YDbDr of SECAM (ITU-R BT.470): Y in [0, 1], Db and Dr in [-1.333, 1.333].

    Db = 1.505 (B - Y), Dr = -1.902 (R - Y), with Y the weighted sum of BT.601; (..., 3, H, W) -> (..., 3, H, W).
    The space of CMC's best ResNets, as {Y, DbDr} (Table 1).

    >>> import torch
    >>> rgb_to_ydbdr(torch.tensor([1.0, 0.0, 0.0])[:, None, None]).flatten()  # red
    tensor([ 0.2990, -0.4500, -1.3330])
    """
    return _mix(rgb, _RGB_TO_YDBDR)


def rgb_to_yuv(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] -> YUV of PAL (ITU-R BT.470): Y in [0, 1], U in [-0.436, 0.436], V in [-0.615, 0.615].

    U = 0.492 (B - Y), V = 0.877 (R - Y), with Y the weighted sum of BT.601; (..., 3, H, W) -> (..., 3, H, W).

    >>> import torch
    >>> rgb_to_yuv(torch.tensor([0.0, 0.0, 1.0])[:, None, None]).flatten()  # blue
    tensor([ 0.1140,  0.4360, -0.1000])
    """
    return _mix(rgb, _RGB_TO_YUV)


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] -> hue, saturation and value, each in [0, 1] (Smith 1978); (..., 3, H, W) -> (..., 3, H, W).

    V = max, S = C / V with C = max - min, and H = (0 + (G - B) / C) / 6, (2 + (B - R) / C) / 6 or (4 + (R - G) / C) / 6, modulo 1,
    where R, G or B is the largest. H is an angle: 0 and 1 are the same red, so a small change of a reddish colour may be a jump
    (which is why CMC holds HSV to be its outlier). Greys have H = S = 0; the gradient of H there is that of its numerator.

    >>> import torch
    >>> rgb_to_hsv(torch.tensor([0.0, 0.5, 0.0])[:, None, None]).flatten()  # dark green
    tensor([0.3333, 1.0000, 0.5000])
    """
    rgb = rgb.contiguous()
    red, green, blue = rgb.unbind(-3)  # (..., H, W)
    value = rgb.amax(-3)
    chroma = value - rgb.amin(-3)
    # Masks are floating point, for a CPU compares into bools slowly. Red goes before green before blue.
    largest = rgb.detach().clone().eq_(value.detach().unsqueeze(-3))
    from_red = largest.select(-3, 0)
    from_green = (1 - from_red) * largest.select(-3, 1)
    from_blue = 1 - from_red - from_green
    sixths = ((green - blue) * from_red).addcmul_(blue - red, from_green).addcmul_(red - green, from_blue)
    sixths = sixths / (chroma + chroma.detach().clone().eq_(0))  # a grey is divided by 1
    hue = sixths.add_(from_green, alpha=2).add_(from_blue, alpha=4).mul_(1 / 6)
    saturation = chroma / (value + value.detach().clone().eq_(0))  # so is black
    return torch.stack([hue - hue.detach().floor(), saturation, value], dim=-3)


def rgb_to_hed(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] -> haematoxylin, eosin and DAB, the stains of histology, by colour deconvolution (Ruifrok and Johnston 2001).

    max(0, M^-1 log(max(c, 1e-6)) / log(1e-6)), M the stains' colours: H in [0, 1.878], E in [0, 1.135], D in [0, 1.574].
    (..., 3, H, W) -> (..., 3, H, W). Those ends are reached by pure colours alone: of a photograph most values are below 0.1.

    >>> import torch
    >>> rgb_to_hed(torch.tensor([0.3, 0.2, 0.6])[:, None, None]).flatten()  # a violet is haematoxylin and eosin
    tensor([0.1337, 0.0266, 0.0000])
    """
    return _mix(rgb.clamp_min(1e-6).log2_(), _LOG2_TO_HED).clamp_min_(0)


def _identity(rgb: Tensor) -> Tensor:
    return rgb


@dataclass(frozen=True)
class ColorSpace:
    """A conversion from RGB with its channels' names and the range of each, by which views are scaled to [-1, 1].

    >>> COLOR_SPACES["ydbdr"].split("DbDr")
    (1, 2)
    >>> COLOR_SPACES["ydbdr"].splits
    [('Y', 'DbDr'), ('Db', 'YDr'), ('Dr', 'YDb')]
    """

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

    @property
    def splits(self) -> list[tuple[str, str]]:
        """Every split of the three channels into two complementary views, one channel against the others (CMC, Figure 5)."""
        return [(name, "".join(other for other in self.channels if other != name)) for name in self.channels]


#: name -> space; the ranges are those of all sRGB colours.
COLOR_SPACES: dict[str, ColorSpace] = {
    "rgb": ColorSpace(_identity, ("R", "G", "B"), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "linear_rgb": ColorSpace(rgb_to_linear_rgb, ("R", "G", "B"), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "xyz": ColorSpace(rgb_to_xyz, ("X", "Y", "Z"), (0.0, 0.0, 0.0), (0.950456, 1.0, 1.088754)),
    "lab": ColorSpace(rgb_to_lab, ("L", "a", "b"), (0.0, -86.183, -107.857), (100.0, 98.233, 94.478)),
    "ycbcr": ColorSpace(rgb_to_ycbcr, ("Y", "Cb", "Cr"), (16.0, 16.0, 16.0), (235.0, 240.0, 240.0)),
    "ydbdr": ColorSpace(rgb_to_ydbdr, ("Y", "Db", "Dr"), (0.0, -1.333, -1.333), (1.0, 1.333, 1.333)),
    "yuv": ColorSpace(rgb_to_yuv, ("Y", "U", "V"), (0.0, -0.43601, -0.614975), (1.0, 0.43601, 0.614975)),
    "hsv": ColorSpace(rgb_to_hsv, ("H", "S", "V"), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "hed": ColorSpace(rgb_to_hed, ("H", "E", "D"), (0.0, 0.0, 0.0), (1.877983, 1.13473, 1.573588)),
}
