"""Rotations, shears and all other affine maps of images, resampled as Pillow's `Image.transform` does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from .geometry import Geometry, sampled


@dataclass(frozen=True)
class Warp(Geometry):
    """Any affine map, between images of one size: what lies outside of the image becomes a fill colour.

    A pixel is the interpolation of the 2 x 2 (bilinear) or 4 x 4 (bicubic) pixels around its point; beyond the border these
    repeat it. The bicubic kernel is the one of Pillow's `transform`, with a = -1, where its `resize` has a = -1/2. Nothing
    is antialiased or clamped: bicubic values may leave the range of the input.

    Flow and normals are bilinear, and 0 outside; labels are nearest. The y of normals points down here, as the pixels' does:
    others would turn the wrong way. Of images smaller than their tensor (`bounds`), a turn mixes what lies beside them into
    their outermost pixels.

    Attributes:
        bicubic: (B,) float32, 1 for bicubic and 0 for bilinear values; None for bilinear alone.
        fill: the colour outside, one number a channel, in [0, 1] also where the images are uint8; values of another
            number of channels (depth) are 0 there.
        fill_label: the label outside; False for maps of bool.
    """

    bicubic: Tensor | None = None
    fill: tuple[float, ...] = ()
    fill_label: int = 255

    @classmethod
    def of(
        cls,
        matrix: Tensor,
        sizes: Tensor,
        size: tuple[int, int],
        bicubic: Tensor | None = None,
        fill: tuple[float, ...] = (),
        fill_label: int = 255,
    ) -> Warp:
        """Maps (B, 2, 3) from the output to the input, for images of `sizes` (B, 2) in tensors of `size`."""
        height, width = sizes.to(torch.float32).unbind(1)
        zero = torch.zeros_like(height)
        return cls(matrix, torch.stack([zero, zero, width, height], 1), size, bicubic, fill, fill_label)

    def values(self, images: Tensor) -> Tensor:
        images, fill = images.to(torch.float32), self._fill_of(images)
        bicubic = torch.zeros_like(self.matrix[:, 0, 0]) if self.bicubic is None else self.bicubic.to(torch.float32)
        parameters = self.matrix, self.bounds, bicubic
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return _sampled(images, *parameters, fill)
        # On a CPU to know the kind of the map pays: a shear or a move along one axis takes a third of the time.
        same_x, same_y = (self.matrix == torch.eye(2, 3)).all(2).unbind(1)
        turns, smooth = ~(same_x | same_y), bicubic > 0
        warped = torch.empty_like(images)
        for chosen, way in (
            (same_y, partial(_slid, axis=0)),
            (same_x & ~same_y, partial(_slid, axis=1)),
            (turns & smooth, _sampled),
            (turns & ~smooth, _sampled),
        ):
            index = chosen.nonzero().squeeze(1)
            if len(index) == len(images):
                return way(images, *parameters, fill)
            if len(index):
                some = (tensor.index_select(0, index) for tensor in (images, *parameters))
                warped.index_copy_(0, index, way(*some, fill))
        return warped

    def labels(self, maps: Tensor) -> Tensor:
        channels = maps if maps.ndim == 4 else maps.unsqueeze(1)
        x, y = _coordinates(self.matrix, self.size)
        picked = _pick(channels, _clamped(y.floor(), self.bounds, 1), _clamped(x.floor(), self.bounds, 0))
        inside = _inside(x, y, self.bounds) > 0
        picked = torch.where(inside, picked, False if maps.dtype == torch.bool else self.fill_label)
        return picked if maps.ndim == 4 else picked.squeeze(1)

    def flow(self, fields: Tensor) -> Tensor:
        return super(Warp, self._unfilled()).flow(fields)

    def normals(self, normals: Tensor) -> Tensor:
        return super(Warp, self._unfilled()).normals(normals)

    def _unfilled(self) -> Warp:
        return replace(self, bicubic=None, fill=())

    def _fill_of(self, images: Tensor) -> Tensor:
        """(1, C, 1, 1), in the units of the images."""
        fill = self.fill if len(self.fill) == images.shape[1] else (0.0,) * images.shape[1]
        unit = 1.0 if images.is_floating_point() else 255.0
        return torch.tensor([unit * value for value in fill], device=images.device).view(1, -1, 1, 1)


def _coordinates(matrix: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """x and y of the input, (B, h, w) each, at the centres of the output's pixels."""
    down = torch.arange(size[0], device=matrix.device)[:, None] + 0.5  # (h, 1)
    right = torch.arange(size[1], device=matrix.device) + 0.5  # (w,)
    (a, b, c), (d, e, f) = (row[..., None, None].unbind(1) for row in matrix.unbind(1))  # (B, 1, 1)
    return a * right + (b * down + c), d * right + (e * down + f)


def _inside(x: Tensor, y: Tensor, bounds: Tensor) -> Tensor:
    """(B, 1, h, w) float32: 1 where a point lies within the bounds; x and y (B, h, w) broadcast."""
    x, y = x.floor(), y.floor()
    return (_clamped(x, bounds, 0).eq_(x) * _clamped(y, bounds, 1).eq_(y)).unsqueeze_(1)


def _clamped(pixel: Tensor, bounds: Tensor, axis: int) -> Tensor:
    """Pixels (B, h, w) along an axis, kept within the bounds."""
    low, high = bounds.view(-1, 4, 1, 1)[:, axis::2].unbind(1)
    return torch.minimum(torch.maximum(pixel, low), high - 1)


def _sampled(images: Tensor, matrix: Tensor, bounds: Tensor, bicubic: Tensor, fill: Tensor) -> Tensor:
    """Any map, of images (B, C, H, W) float32, by torch's kernels.

    Its bicubic one has a = -3/4 in place of Pillow's -1. In a, the weights along an axis are a line, K_0 + a L, and K_0 are
    bilinear ones at the fraction 3 d^2 - 2 d^3 in place of d: so the bicubic values are drawn out by 4/3 from those. That is
    exact along an axis, and else leaves a quarter of L's mixed term, which was measured to be 0.07 of a grey level in photographs.
    """
    x, y = _coordinates(matrix, images.shape[-2:])
    inside = _inside(x, y, bounds)
    if images.device.type == "cpu" and not torch.compiler.is_compiling() and not bicubic.any():
        return torch.lerp(fill, sampled(images, x, y, "bilinear"), inside)
    smooth = bicubic.view(-1, 1, 1)
    values = sampled(images, _eased(x, smooth), _eased(y, smooth), "bilinear")
    cubic = sampled(images, x, y, "bicubic")
    return torch.lerp(fill, torch.lerp(values, cubic, smooth.unsqueeze(1) * (4 / 3)), inside)


def _eased(x: Tensor, smooth: Tensor) -> Tensor:
    """A coordinate with d + smooth (3 d^2 - 2 d^3 - d) in place of its distance d from the centre of a pixel."""
    centre = (x - 0.5).floor_().add_(0.5)
    part = x - centre
    return torch.addcmul(x, part * smooth, (3 - 2 * part).mul_(part).sub_(1))


def _slid(images: Tensor, matrix: Tensor, bounds: Tensor, bicubic: Tensor, fill: Tensor, axis: int) -> Tensor:
    """A map that only moves along an axis, each line by a distance of its own: four taps of whole lines.

    To the bilinear weights (1 - d, d) bicubic ones, a = -1, add u = d (1 - d)^2 and v = d^2 (1 - d): they are
    (-u, 1 - d + u, d + v, -v).
    """
    height, width = images.shape[-2:]
    length, lines = (width, height) if axis == 0 else (height, width)
    along, across = ((1, -1), (-1, 1)) if axis == 0 else ((-1, 1), (1, -1))  # shapes, in (h, w)
    line = torch.arange(float(lines), device=images.device)
    moved, sheared = matrix[:, axis, 2, None], matrix[:, axis, 1 - axis, None]
    distance = torch.addcmul(moved, sheared, line + 0.5).view(len(images), *across)
    start = distance.floor()
    right = distance - start
    left = 1 - right
    bow = right * left * bicubic.view(-1, 1, 1)
    before, after = bow * left, bow * right  # u, v
    weights = torch.stack([-before, left + before, right + after, -after]).unsqueeze(2).unbind()
    step = torch.arange(-1.0, length + 2, device=images.device).view(along)
    pixel, line = _clamped(start + step, bounds, axis), line.view(across)  # (B, h, w + 3) or (B, h + 3, w)
    near = _pick(images, line, pixel) if axis == 0 else _pick(images, pixel, line)
    total = near.narrow(3 - axis, 0, length) * weights[0]
    for tap in range(1, 4):
        total.addcmul_(near.narrow(3 - axis, tap, length), weights[tap])
    nearest = (distance + 0.5).floor_() + step.narrow(1 - axis, 1, length)  # the pixel that a point falls into
    return torch.lerp(fill, total, _clamped(nearest, bounds, axis).eq_(nearest).unsqueeze_(1))


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) at rows and columns that broadcast to (B, h, w) -> (B, C, h, w); they may be whole floats."""
    place = rows * images.shape[-1] + columns  # (B, h, w), in the flattened image
    place = place.to(torch.int64).flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
    height, width = torch.broadcast_shapes(rows.shape, columns.shape)[-2:]
    return images.flatten(2).gather(2, place).view(*images.shape[:2], height, width)
