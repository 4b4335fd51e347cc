"""Images as figures: neighbours and loss maps beside what they belong to."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from hf_infomax.models.errors import UsageError

from .features import to_unit_range
from .style import WIDTH, house_figure, house_title, require_data


def _mosaic(images: np.ndarray, gap: int) -> np.ndarray:
    """Images (rows, columns, H, W, 3) -> one white sheet with `gap` pixels between them."""
    rows, columns, height, width, _ = images.shape
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), dtype=np.float32)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = images[row, column]
    return sheet


def _pixels(images: Tensor) -> np.ndarray:
    """(..., 3, H, W), uint8 or in [0, 1] -> (..., H, W, 3) float32."""
    flat = to_unit_range(images.detach().cpu().reshape(-1, *images.shape[-3:])).clamp(0, 1)
    return flat.reshape(images.shape).movedim(-3, -1).numpy()


def _image_panel(axes: Axes, image: np.ndarray, title: str) -> None:
    # Small images keep their pixels: blur would show more than the encoder has seen.
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, fontsize=10, fontweight="normal", pad=6)
    axes.set_axis_off()


def plot_neighbours(query_images: Tensor, neighbour_images: Mapping[str, Tensor], path: str | os.PathLike[str]) -> Path:
    """Queries on the left, and beside each its nearest neighbours by every representation, nearest first.

    Args:
        query_images: (Q, 3, H, W), uint8 or in [0, 1].
        neighbour_images: name of the model -> (Q, k, 3, H, W).
        path: of the PNG.

    Raises:
        UsageError: there is nothing to draw, or a model has other queries.

    Source: Hjelm et al. 2019 (DIM), Figure 7, by the L1 distance, see `nearest_neighbours`.
    """
    require_data(query_images, "no query images")
    require_data(neighbour_images, "no model's neighbours")
    for name, images in neighbour_images.items():
        if images.dim() != 5 or len(images) != len(query_images):
            shape = tuple(images.shape)
            raise UsageError(
                f"{name} has neighbours of shape {shape}: give (Q, k, 3, H, W) with Q = {len(query_images)}."
            )
    gap = max(1, query_images.shape[-1] // 16)
    counts = [1, *(images.shape[1] for images in neighbour_images.values())]
    image = query_images.shape[-1]
    widths = [count * (image + gap) - gap for count in counts]  # in pixels, so that the rows of all panels stand level
    side = min(0.95, (WIDTH - 0.3 * len(counts)) / sum(counts))  # inches of one image
    width = max(0.45 * WIDTH, side * sum(counts) + 0.25 * len(counts))
    with house_figure(path, height=side * 1.06 * len(query_images) + 0.65, width=width) as figure:
        grid = figure.subplots(1, len(counts), width_ratios=widths, squeeze=False)[0]
        _image_panel(grid[0], _mosaic(_pixels(query_images[:, None]), gap), "Query")
        for axes, (name, images) in zip(grid[1:], neighbour_images.items(), strict=True):
            _image_panel(axes, _mosaic(_pixels(images), gap), name)
        house_title(figure, "Nearest neighbours, the closest first")
    return Path(path)


def plot_loss_maps(images: Tensor, maps: Tensor, path: str | os.PathLike[str], per_line: int = 4) -> Path:
    """Images, and beside each the InfoNCE loss at every location of its local map, all on one colour scale.

    A low loss marks where the global vector says most about the place.

    Args:
        images: (n, 3, H, W), uint8 or in [0, 1].
        maps: (n, h, w) losses in nats.
        path: of the PNG.
        per_line: pairs beside each other.

    Raises:
        UsageError: there is nothing to draw, or not one map for each image.

    Source: Hjelm et al. 2019 (DIM), Figure 13.
    """
    require_data(images, "no images")
    if maps.dim() != 3 or len(maps) != len(images):
        raise UsageError(f"Loss maps have shape {tuple(maps.shape)}: give (n, h, w) with n = {len(images)}.")
    pixels, losses = _pixels(images), maps.detach().float().cpu().numpy()
    per_line = min(per_line, len(images))
    lines = math.ceil(len(images) / per_line)
    side = min(1.0, (WIDTH - 1.2) / (2.3 * per_line))  # inches of one image
    width = max(0.55 * WIDTH, 2.3 * side * per_line + 1.2)
    with house_figure(path, height=1.12 * side * lines + 0.55, width=width) as figure:
        ratios = [1, 1, 0.12] * per_line
        grid = figure.add_gridspec(
            lines, len(ratios) - 1, width_ratios=ratios[:-1]
        )  # the narrow columns part the pairs
        panels = []
        for index, (image, loss) in enumerate(zip(pixels, losses, strict=True)):
            line, column = divmod(index, per_line)
            left, right = (figure.add_subplot(grid[line, 3 * column + offset]) for offset in (0, 1))
            left.imshow(image, interpolation="nearest")
            shown = right.imshow(loss, cmap="cividis", vmin=losses.min(), vmax=losses.max(), interpolation="nearest")
            for axes in (left, right):
                axes.set_axis_off()
            panels += [left, right]
        bar = figure.colorbar(shown, ax=panels, location="right", shrink=0.85, aspect=22 * lines, pad=0.02)
        bar.set_label("InfoNCE loss (nats)")
        bar.outline.set_visible(False)
        house_title(figure, "Loss at each location, beside its image")
    return Path(path)
