"""What a geometric augmentation does to a batch: one affine map for each image, applied to every column of the sample.

    values    pixels, depth         antialiased bilinear (a crop), exact (a move), bilinear or bicubic (a warp)
    labels    class maps, masks     nearest neighbour
    flow      displacements         as values; the vectors are scaled, mirrored and turned with the image
    normals   unit vectors          as values; mirrored and turned, then made unit vectors again
    boxes     corners in pixels     mapped, then clipped to the image; a box without area left is NaN

Coordinates are those of pixel edges: pixel i covers [i, i + 1), its centre is i + 1/2. A parameter is a tensor over the
batch, nothing loops over images (but for large crops on a CPU, where torch's own kernel, image by image, is ten times as
fast as a batched product).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_LARGE = 64  # pixels of a crop's side from which torch's kernel, image by image, was measured to win on a CPU


@dataclass(frozen=True)
class Geometry:
    """An affine map from the pixels of the output to those of the input, for each image.

    Attributes:
        matrix: (B, 2, 3) float32, (x, y) of the input = matrix @ (x, y, 1) of the output.
        bounds: (B, 4) float32, the left, top, right and bottom edge of what may be read of each input, in pixels.
        size: height and width of the output.
    """

    matrix: Tensor
    bounds: Tensor
    size: tuple[int, int]

    def values(self, images: Tensor) -> Tensor:
        """(B, C, H, W) of any dtype -> (B, C, h, w) float32, in the units of the input."""
        raise NotImplementedError

    def labels(self, maps: Tensor) -> Tensor:
        """(B, H, W) or (B, C, H, W) class maps or masks -> the same at the output's size and dtype."""
        channels = maps if maps.ndim == 4 else maps.unsqueeze(1)
        x, y = self._along(0), self._along(1)  # (B, w), (B, h)
        picked = _gather(channels, self._pixel(y, 1), self._pixel(x, 0))
        return picked if maps.ndim == 4 else picked.squeeze(1)

    def boxes(self, boxes: Tensor) -> Tensor:
        """(B, M, 4) corners [x0, y0, x1, y1] in pixels of the input -> in pixels of the output, clipped; NaN if outside."""
        x0, y0, x1, y1 = boxes.unbind(-1)
        corners = torch.stack(
            [torch.stack([x0, x0, x1, x1], -1), torch.stack([y0, y1, y0, y1], -1)], -1
        )  # (B, M, 4, 2)
        moved = (corners - self.matrix[:, None, None, :, 2]) @ self._inverse().mT[:, None]
        limit = moved.new_tensor([self.size[1], self.size[0]])
        low = torch.minimum(moved.amin(2).clamp_(min=0), limit)
        high = torch.minimum(moved.amax(2).clamp_(min=0), limit)
        visible = ((high - low) > 0).all(-1, keepdim=True)
        return torch.cat([low, high], -1).where(visible, torch.nan)

    def flow(self, fields: Tensor) -> Tensor:
        """(B, 2 k, H, W) displacements (x, y) in pixels, k fields stacked -> the same in pixels of the output."""
        return _turn(self.values(fields), self._inverse())

    def normals(self, normals: Tensor) -> Tensor:
        """(B, 3, H, W) unit vectors (x right, y down or up, z) -> the same, turned and mirrored with the image; zeros stay.

        They are never stretched: a crop of another aspect is another picture of the same surface.
        """
        values = self.values(normals)
        return F.normalize(torch.cat([_turn(values[:, :2], _rotation(self._inverse())), values[:, 2:]], dim=1), dim=1)

    def _inverse(self) -> Tensor:
        """(B, 2, 2): displacements of the input -> of the output."""
        a, b, c, d = self.matrix[:, :, :2].flatten(1).unbind(1)
        adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
        return adjugate / (a * d - b * c)[:, None, None]

    def _along(self, axis: int) -> Tensor:
        """(B, n): coordinates of the input at the centres of the output's columns (axis 0) or rows (axis 1)."""
        centres = torch.arange(self.size[1 - axis], device=self.matrix.device) + 0.5
        return centres * self.matrix[:, axis, axis, None] + self.matrix[:, axis, 2, None]

    def _pixel(self, coordinate: Tensor, axis: int) -> Tensor:
        """Coordinates (B, n) -> the pixels that they fall into, kept within the bounds."""
        low, high = self.bounds[:, axis, None], self.bounds[:, axis + 2, None]
        return torch.minimum(torch.maximum(coordinate.floor(), low), high - 1).long()


class Crop(Geometry):
    """A box of each image, brought to one size: resampled with an antialiased triangle filter, as Pillow and torch do."""

    @classmethod
    def of(cls, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Crop:
        """Boxes of (B,) whole pixels."""
        zero = torch.zeros_like(top)
        rows = [torch.stack([width / size[1], zero, left], -1), torch.stack([zero, height / size[0], top], -1)]
        return cls(torch.stack(rows, -2), torch.stack([left, top, left + width, top + height], -1), size)

    def values(self, images: Tensor) -> Tensor:
        large = max(*self.size, *images.shape[-2:]) >= _LARGE
        if large and images.device.type == "cpu" and not (torch.compiler.is_compiling() or images.requires_grad):
            return self._one_by_one(images)
        if images.shape[-2] <= self.size[0] and images.shape[-1] <= self.size[1]:
            return self._enlarged(images)
        rows = self._weights(1, images.shape[-2])  # (B, h, H)
        columns = self._weights(0, images.shape[-1])  # (B, w, W)
        return separable(images, rows, columns)

    def _weights(self, axis: int, length: int) -> Tensor:
        """(B, n, length): what every pixel of the input gives to every pixel of the output, along one axis."""
        pixel = torch.arange(length, device=self.matrix.device) + 0.5  # (length,)
        inside = torch.minimum(
            pixel - self.bounds[:, axis, None], self.bounds[:, axis + 2, None] - pixel
        )  # (B, length)
        reach = self.matrix[:, axis, axis, None].clamp(min=1)  # half the filter's width, in pixels of the input
        distance = (pixel / reach).unsqueeze(1) - (self._along(axis) / reach).unsqueeze(2)  # (B, n, length)
        triangle = distance.abs_().neg_().add_(1)
        # At least 1 inside the box, below 0 outside: what is cut off there, the division gives back to the rest.
        weight = torch.minimum(triangle, 2 * inside.unsqueeze(1)).clamp_(min=0)
        return weight.div_(weight.sum(-1, keepdim=True))

    def _enlarged(self, images: Tensor) -> Tensor:
        """Where no crop can be larger than the result, the filter is as narrow as it gets: plain bilinear."""
        x, y = (
            torch.minimum(torch.maximum(self._along(axis), low + 0.5), high - 0.5)
            for axis, low, high in (
                (axis, self.bounds[:, axis, None], self.bounds[:, axis + 2, None]) for axis in (0, 1)
            )
        )  # (B, w), (B, h): beyond the outermost centres the crop repeats its edge
        height, width = self.size
        return sampled(
            images.to(torch.float32), x.unsqueeze(1).expand(-1, height, -1), y.unsqueeze(2).expand(-1, -1, width)
        )

    def _one_by_one(self, images: Tensor) -> Tensor:
        images = images if images.dtype == torch.uint8 else images.to(torch.float32)  # the types that the kernel has
        resized = images.new_empty(len(images), images.shape[1], *self.size)
        for image, (left, top, right, bottom), out in zip(images, self.bounds.long().tolist(), resized, strict=True):
            box = image[None, :, top:bottom, left:right]
            out.copy_(F.interpolate(box, self.size, mode="bilinear", antialias=True)[0])
        return resized.to(torch.float32)


class Move(Geometry):
    """Whole pixels, moved or mirrored; beyond the bounds the image is reflected, without repeating its edge."""

    @classmethod
    def of(
        cls,
        sizes: Tensor,
        size: tuple[int, int],
        top: Tensor | int = 0,
        left: Tensor | int = 0,
        mirrored: Tensor | bool = False,
    ) -> Move:
        """A window of `size` with its corner at (top, left), (B,) whole pixels, out of images of `sizes` (B, 2).

        Where `mirrored` (B,), left and right of the whole image are exchanged first.
        """
        height, width = sizes.to(torch.float32).unbind(1)
        zero = torch.zeros_like(height)
        step = torch.where(torch.as_tensor(mirrored, device=sizes.device), -1.0, 1.0) + zero
        start = torch.where(step > 0, left + zero, width - left)
        rows = [torch.stack([step, zero, start], -1), torch.stack([zero, zero + 1, top + zero], -1)]
        return cls(torch.stack(rows, -2), torch.stack([zero, zero, width, height], -1), size)

    def values(self, images: Tensor) -> Tensor:
        return self.labels(images).to(torch.float32)

    def _pixel(self, coordinate: Tensor, axis: int) -> Tensor:
        low, last = self.bounds[:, axis, None], self.bounds[:, axis + 2, None] - self.bounds[:, axis, None] - 1
        place = (coordinate.floor() - low).remainder((2 * last).clamp(min=1))  # the reflections repeat themselves
        return (last - (last - place).abs() + low).long()


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ image @ columns^T for every image and channel: any filter that treats the two axes apart.

    Shapes: images (B, C, H, W), rows (B, h, H), columns (B, w, W) -> (B, C, h, w).
    """
    batch, channels, height, width = images.shape
    lines = images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # (B, H, C, W)
    lines = torch.bmm(rows, lines.reshape(batch, height, channels * width))  # (B, h, C * W)
    lines = torch.bmm(lines.view(batch, -1, width), columns.mT)  # (B, h * C, w)
    return lines.view(batch, -1, channels, columns.shape[1]).transpose(1, 2).contiguous()


def sampled(images: Tensor, x: Tensor, y: Tensor, mode: str = "bilinear") -> Tensor:
    """(B, C, H, W) float32 at points (B, h, w) in pixels -> (B, C, h, w); beyond the border this is repeated."""
    height, width = images.shape[-2:]
    grid = torch.stack([x * (2 / width) - 1, y * (2 / height) - 1], 3)  # -1 and 1 are the edges of the image
    return F.grid_sample(images, grid, mode, padding_mode="border", align_corners=False)


def _gather(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) at rows (B, h) and columns (B, w) of pixels -> (B, C, h, w)."""
    batch, channels, _, width = maps.shape
    place = rows[:, :, None] * width + columns[:, None, :]  # (B, h, w), in the flattened image
    place = place.view(batch, 1, -1).expand(-1, channels, -1)
    return maps.flatten(2).gather(2, place).view(batch, channels, rows.shape[1], columns.shape[1])


def _rotation(linear: Tensor) -> Tensor:
    """(B, 2, 2) -> the nearest rotation or reflection: the orthogonal factor of the polar decomposition."""
    a, b, c, d = linear.flatten(1).unbind(1)
    keeps = torch.where(a * d - b * c > 0, 1.0, -1.0)  # the sense of turning
    nearest = torch.stack([a + keeps * d, b - keeps * c, c - keeps * b, d + keeps * a], 1)
    return F.normalize(nearest.unflatten(1, (2, 2)), dim=2)


def _turn(vectors: Tensor, linear: Tensor) -> Tensor:
    """Apply (B, 2, 2) to (B, 2 k, h, w) vectors (x, y)."""
    pairs = vectors.unflatten(1, (-1, 2))  # (B, k, 2, h, w)
    return torch.einsum("bij,bkjhw->bkihw", linear, pairs).flatten(1, 2)
