"""Figures: plain data -> a PNG at report width, by matplotlib's objects directly, so that no global state is left."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from hf_infomax.models.errors import UsageError

from .features import to_unit_range

#: Okabe and Ito's colours, told apart with every common colour blindness; the pale yellow is left out, for white paper.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
#: Further series repeat the colours with another dash.
DASHES = ("-", "--", ":", "-.")
INK, MUTED, FAINT = "#1F2933", "#616E7C", "#E4E7EB"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#9AA5B1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}
WIDTH = 9.0  #: inches; at 160 dots an inch 1,440 pixels, sharp at the 720 of a report on a dense screen
DPI = 160
#: What progress is counted in -> the label of the axis.
UNITS = {"epoch": "epochs", "images": "images seen", "step": "optimizer steps"}
#: From paper to a blue that still carries dark text at mid-scale.
BLUES = LinearSegmentedColormap.from_list("infomax_blues", ["#F5F8FB", "#BBD7EA", "#5FA4CE", "#0B5C93"])


@contextmanager
def _figure(path: str | os.PathLike[str], height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A blank figure in the house style, saved to `path` and emptied when the block ends."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # The software's name and version would make equal figures differ from one machine to the next.
        figure.savefig(path, format="png", metadata={"Software": None})
        figure.clear()


def _require(data: Any, what: str) -> None:
    if len(data) == 0:
        raise UsageError(f"There is nothing to draw: {what}.")


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def _line_style(index: int) -> dict[str, str]:
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": DASHES[index // len(PALETTE) % len(DASHES)]}


def _legend_above(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, above them, where there is more than one series to tell apart."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = min(len(labels), max(1, 96 // (max(map(len, labels)) + 8)))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.8, columnspacing=1.6)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean, over what there is at the ends."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones_like(values), ones, "same")


def _curve(axes: Axes, x: list[float], y: list[float], name: str, style: Mapping[str, str]) -> None:
    """A line with its last value marked; a long noisy one as a running mean over a pale trace of the values."""
    values = np.asarray(y, dtype=float)
    if len(values) > 100:
        axes.plot(x, values, linewidth=0.7, alpha=0.25, **style)
        values = _smooth(values, len(values) // 50)
    axes.plot(x, values, label=name, **style)
    axes.plot(x[-1:], values[-1:], marker="o", markersize=4.5, color=style["color"])


def plot_training(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], path: str | os.PathLike[str], x: str = "epoch"
) -> Path:
    """The loss and the bound on the mutual information while training, one line for each run.

    Args:
        histories: name of the run -> the records of its metrics.jsonl, with `loss`, what `x` names, and `bound`, None where
            the estimator is no lower bound; the panel is left out where no run has one.
        path: of the PNG.
        x: "epoch", "images" or "step".

    Raises:
        UsageError: there are no records, or they lack `x`.
    """
    _require([record for history in histories.values() for record in history], "the histories hold no records")
    missing = [name for name, history in histories.items() if any(x not in record for record in history)]
    if missing:
        raise UsageError(f"The history of {missing[0]} does not count '{x}': choose another x, such as 'step'.")
    panels = {"loss": ("Loss minimised in training", "loss (nats)")}
    if any(record.get("bound") is not None for history in histories.values() for record in history):
        panels["bound"] = ("Estimated mutual information, from below", "lower bound (nats)")
    with _figure(path, height=3.7, width=WIDTH if len(panels) == 2 else 0.65 * WIDTH) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (key, (title, label)) in zip(grid, panels.items(), strict=True):
            for index, (name, history) in enumerate(histories.items()):
                points = [(record[x], record[key]) for record in history if record.get(key) is not None]
                if points:
                    _curve(axes, *map(list, zip(*points, strict=True)), name, _line_style(index))
            axes.set(title=title, xlabel=UNITS.get(x, x), ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=x != "epoch"))
        _legend_above(figure, grid[0])
    return Path(path)


def plot_knn(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | os.PathLike[str],
    target: str = "label",
    chance: float | None = None,
) -> Path:
    """kNN accuracy of each layer while training, a panel for each run, all on one scale.

    Args:
        histories: name of the run -> records {"epoch": e, layer: accuracy in [0, 1], ...}; "step" is passed over.
        path: of the PNG.
        target: what the accuracy is of, for the titles.
        chance: accuracy of a guess, in [0, 1], drawn as a dashed line.

    Raises:
        UsageError: there are no records, or they hold no layer.
    """
    _require([record for history in histories.values() for record in history], "the histories hold no records")
    records = [record for history in histories.values() for record in history]
    layers = list(dict.fromkeys(key for record in records for key in record if key not in ("epoch", "step")))
    _require(layers, "the records hold no layer's accuracy")
    columns = 2 if len(histories) in (2, 4) else min(len(histories), 3)
    lines = math.ceil(len(histories) / columns)
    width = WIDTH if columns > 1 else 0.65 * WIDTH
    with _figure(path, height=0.4 + 3.2 * lines, width=width) as figure:
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for axes, (name, history) in zip(grid, histories.items(), strict=False):
            for index, layer in enumerate(layers):
                points = [(record["epoch"], 100 * record[layer]) for record in history if layer in record]
                # A run without this layer still names it, so that one legend serves all panels.
                epochs, accuracies = map(list, zip(*points, strict=True)) if points else ([], [])
                axes.plot(epochs, accuracies, marker="o", markersize=3.5, label=layer, **_line_style(index))
            if chance is not None:
                axes.axhline(100 * chance, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="chance")
            axes.set(title=name, xlabel="epochs")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        for axes in grid[::columns]:
            axes.set_ylabel(f"kNN accuracy, {target} (%)")
        for axes in grid[len(histories) :]:
            axes.remove()
        _legend_above(figure, grid[0])
    return Path(path)


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
    _require(query_images, "no query images")
    _require(neighbour_images, "no model's neighbours")
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
    with _figure(path, height=side * 1.06 * len(query_images) + 0.65, width=width) as figure:
        grid = figure.subplots(1, len(counts), width_ratios=widths, squeeze=False)[0]
        _image_panel(grid[0], _mosaic(_pixels(query_images[:, None]), gap), "Query")
        for axes, (name, images) in zip(grid[1:], neighbour_images.items(), strict=True):
            _image_panel(axes, _mosaic(_pixels(images), gap), name)
        _title(figure, "Nearest neighbours, the closest first")
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
    _require(images, "no images")
    if maps.dim() != 3 or len(maps) != len(images):
        raise UsageError(f"Loss maps have shape {tuple(maps.shape)}: give (n, h, w) with n = {len(images)}.")
    pixels, losses = _pixels(images), maps.detach().float().cpu().numpy()
    per_line = min(per_line, len(images))
    lines = math.ceil(len(images) / per_line)
    side = min(1.0, (WIDTH - 1.2) / (2.3 * per_line))  # inches of one image
    width = max(0.55 * WIDTH, 2.3 * side * per_line + 1.2)
    with _figure(path, height=1.12 * side * lines + 0.55, width=width) as figure:
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
        _title(figure, "Loss at each location, beside its image")
    return Path(path)


def plot_heatmap(
    row_names: Sequence[str],
    column_names: Sequence[str],
    values: Sequence[Sequence[float]],
    path: str | os.PathLike[str],
    title: str,
    number_format: str = "#.3g",
) -> Path:
    """A table as coloured cells with the numbers written in, each column on its own colour scale, darker for larger.

    Args:
        row_names, column_names: what the cells are of; see `Table.lines`, `Table.headings` and `Table.values`.
        values: (rows, columns); NaN where nothing was measured.
        path: of the PNG.
        title: states what is seen.
        number_format: of the numbers.

    Raises:
        UsageError: there is nothing to draw, or the names do not fit the values.
    """
    table = np.asarray(values, dtype=float)
    if table.size == 0 or table.shape != (len(row_names), len(column_names)):
        names = f"{len(row_names)} rows and {len(column_names)} columns"
        raise UsageError(f"The table of values has shape {table.shape}, its names {names}: give one name for each.")
    finite = np.where(np.isfinite(table), table, np.nan)
    lowest = np.array([np.nanmin(column, initial=np.inf) for column in finite.T])
    spread = np.array([np.nanmax(column, initial=-np.inf) for column in finite.T]) - lowest
    # A column of equal numbers has no better or worse, and takes the middle of the scale.
    share = np.where(
        spread > 0, (finite - lowest) / np.where(spread > 0, spread, 1), np.where(np.isfinite(finite), 0.5, np.nan)
    )
    margin = 0.5 + 0.085 * max(map(len, row_names))
    width = min(WIDTH, max(0.5 * WIDTH, margin + 1.25 * len(column_names)))
    header = 0.2 * max(name.count("\n") + 1 for name in column_names)
    with _figure(path, height=0.65 + header + 0.36 * len(row_names), width=width) as figure:
        axes = figure.subplots()
        axes.imshow(share, cmap=BLUES.with_extremes(bad="#FFFFFF"), vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(column_names)), column_names, color=INK)
        axes.set_yticks(range(len(row_names)), row_names, color=INK)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(False)
        for edge in np.arange(1, len(row_names)) - 0.5:
            axes.axhline(edge, color="white", linewidth=2)
        for edge in np.arange(1, len(column_names)) - 0.5:
            axes.axvline(edge, color="white", linewidth=2)
        for (row, column), value in np.ndenumerate(finite):
            text = format(value, number_format).removesuffix(".") if np.isfinite(value) else "-"
            colour = "white" if share[row, column] > 0.7 else INK if np.isfinite(value) else MUTED
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9.5)
        _title(figure, title)
    return Path(path)
