"""A picture of what a recipe makes of images, for a person to look at before a long run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

_TILE, _GAP, _HEAD = 96, 6, 26  # pixels
_INK, _PAPER, _GRID = (60, 60, 60), (255, 255, 255), (225, 225, 225)


def view_sheet(images: Tensor, views: Mapping[str, Tensor], sizes: Tensor | None = None) -> Image.Image:
    """One row an image: the image itself, then its views, each under its name.

    Args:
        images: (B, 3, H, W) uint8, or floating point in [0, 1].
        views: what `Views` gives: (B, 3, h, w), (B, V, 3, h, w) as V columns; `jigsaw_values`, (B, 9, 3, h, w), as one
            mosaic of its patches, row by row in the order that they have.
        sizes: (B, 2), heights and widths of images that are smaller than their tensor.

    Returns:
        An RGB picture. Small images are enlarged by whole numbers, so that their pixels are seen.

    Example:
        >>> views = recipes.load("simclr", image_size=32)
        >>> view_sheet(images, views(images)).save("views.png")
    """
    images = images / 255 if images.dtype == torch.uint8 else images.clone()
    for image, (height, width) in zip(images, [] if sizes is None else sizes.tolist(), strict=False):
        image[:, height:], image[:, :, width:] = 1, 1  # paper, where there is no image
    columns = {"image": images}
    for name, view in views.items():
        title = "view" if name == "pixel_values" else name.removesuffix("_values")
        if name.startswith("jigsaw"):
            columns[title] = _mosaic(view)
        elif view.ndim == 5:
            columns |= {f"{title} {number + 1}": crop for number, crop in enumerate(view.unbind(1))}
        elif view.ndim == 4 and view.shape[1] == 3:
            columns[title] = view
    tiles = {name: _tiles(column) for name, column in columns.items()}
    return _paste(tiles)


def _mosaic(patches: Tensor) -> Tensor:
    """(B, n * n, 3, h, w) -> (B, 3, n (h + 1) - 1, n (w + 1) - 1), a white line between the patches."""
    grid = math.isqrt(patches.shape[1])
    framed = F.pad(patches, (0, 1, 0, 1), value=1.0).unflatten(1, (grid, grid))  # (B, n, n, 3, h + 1, w + 1)
    return framed.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)[..., :-1, :-1]


def _tiles(column: Tensor) -> list[np.ndarray]:
    """Images of one size -> (h, w, 3) uint8 each, enlarged by a whole number to about a tile."""
    factor = max(1, round(_TILE / max(column.shape[-2:])))
    enlarged = column.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    return list((enlarged.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(force=True))


def _paste(tiles: Mapping[str, list[np.ndarray]]) -> Image.Image:
    font = ImageFont.load_default(size=13)
    widths = {name: max(column[0].shape[1], math.ceil(font.getlength(name))) + _GAP for name, column in tiles.items()}
    height = max(column[0].shape[0] for column in tiles.values()) + _GAP
    rows = len(next(iter(tiles.values())))
    sheet = Image.new("RGB", (sum(widths.values()) + _GAP, rows * height + _HEAD + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    left = _GAP
    for name, column in tiles.items():
        draw.text((left, _GAP), name, fill=_INK, font=font)
        for row, tile in enumerate(column):
            sheet.paste(Image.fromarray(tile), (left, _HEAD + row * height))
        left += widths[name]
    for row in range(1, rows):
        line = _HEAD + row * height - _GAP // 2
        draw.line([(_GAP, line), (sheet.width - _GAP, line)], fill=_GRID)
    return sheet
