"""Images as figures: neighbours and loss maps beside what they belong to."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
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


def plot_loss_maps(
    images: Tensor,
    maps: Tensor,
    path: str | os.PathLike[str],
    per_line: int = 4,
    occluded_images: Tensor | None = None,
    occluded_maps: Tensor | None = None,
) -> Path:
    """Images, and beside each the InfoNCE loss at every location of its local map, all on one colour scale.

    A low loss marks where the global vector says most about the place. With occluded images, each has a second pair below its
    first: what the encoder saw instead, and the loss when the global vector is that of the occluded image and the local map still
    that of the whole one. The paper finds it highest where the encoder could not look.

    Args:
        images: (n, 3, H, W), uint8 or in [0, 1].
        maps: (n, h, w) losses in nats.
        path: of the PNG.
        per_line: images beside each other.
        occluded_images: (n, 3, H, W) of the same images, in the same order.
        occluded_maps: (n, h, w) losses in nats, of the global vectors of `occluded_images`.

    Raises:
        UsageError: there is nothing to draw, not one map for each image, or occluded images without maps or maps without images.

    Source: Hjelm et al. 2019 (DIM), Figure 13.
    """
    require_data(images, "no images")
    if (occluded_images is None) != (occluded_maps is None):
        raise UsageError("Occluded images and their loss maps belong together: give both or neither.")
    pairs = {"": (images, maps)}
    if occluded_images is not None:
        pairs = {"whole": (images, maps), "occluded": (occluded_images, occluded_maps)}
    for shown, losses in pairs.values():
        if losses.dim() != 3 or not len(losses) == len(shown) == len(images):
            shapes = f"{tuple(losses.shape)} for {len(shown)} images"
            raise UsageError(f"Loss maps have shape {shapes}: give (n, h, w) with n = {len(images)}, and n images.")
    per_line = min(per_line, len(images))
    lines = math.ceil(len(images) / per_line)
    side = min(1.0, (WIDTH - 1.2) / (2.3 * per_line))  # inches of one image
    width = max(0.55 * WIDTH, 2.3 * side * per_line + 1.2)
    with house_figure(path, height=(1.06 * len(pairs) + 0.08) * side * lines + 0.5, width=width) as figure:
        panels, shown = _draw_pairs(figure, pairs, lines, per_line)
        bar = figure.colorbar(shown, ax=panels, location="right", shrink=0.85, aspect=22 * lines * len(pairs), pad=0.02)
        bar.set_label("InfoNCE loss (nats)")
        bar.outline.set_visible(False)
        seen = ", whole and occluded" if len(pairs) > 1 else ", beside its image"
        house_title(figure, f"Loss at each location{seen}")
    return Path(path)


def _draw_pairs(
    figure: Figure, pairs: Mapping[str, tuple[Tensor, Tensor]], lines: int, per_line: int
) -> tuple[list[Axes], AxesImage]:
    """(image, map) pairs, those of one image below each other -> the panels, and a map for the colour bar."""
    losses = {name: maps.detach().float().cpu().numpy() for name, (_, maps) in pairs.items()}
    lowest, highest = min(map(np.min, losses.values())), max(map(np.max, losses.values()))
    # Narrow columns and lines part the images; that after the last is left off.
    widths = ([1, 1, 0.12] * per_line)[:-1]
    heights = ([1] * len(pairs) + [0.08]) * lines
    grid = figure.add_gridspec(len(heights) - 1, len(widths), width_ratios=widths, height_ratios=heights[:-1])
    panels = []
    for below, (name, (images, _)) in enumerate(pairs.items()):
        for index, (image, loss) in enumerate(zip(_pixels(images), losses[name], strict=True)):
            line, column = divmod(index, per_line)
            row = line * (len(pairs) + 1) + below
            left, right = (figure.add_subplot(grid[row, 3 * column + offset]) for offset in (0, 1))
            left.imshow(image, interpolation="nearest")
            shown = right.imshow(loss, cmap="cividis", vmin=lowest, vmax=highest, interpolation="nearest")
            if column == 0:
                left.text(-0.06, 0.5, name, transform=left.transAxes, rotation=90, ha="right", va="center", fontsize=9)
            for axes in (left, right):
                axes.set_axis_off()
            panels += [left, right]
    return panels, shown
