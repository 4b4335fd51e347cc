"""Curves and tables as figures: plain data -> a PNG at report width."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from hf_infomax.models.errors import UsageError

from .series import legend_above, line_style
from .style import INK, MUTED, WIDTH, house_figure, house_title, require_data

#: What progress is counted in -> the label of the axis.
UNITS = {"epoch": "epochs", "images": "images seen", "step": "optimizer steps"}
#: From paper to a blue that still carries dark text at mid-scale.
BLUES = LinearSegmentedColormap.from_list("infomax_blues", ["#F5F8FB", "#BBD7EA", "#5FA4CE", "#0B5C93"])


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
    require_data([record for history in histories.values() for record in history], "the histories hold no records")
    missing = [name for name, history in histories.items() if any(x not in record for record in history)]
    if missing:
        raise UsageError(f"The history of {missing[0]} does not count '{x}': choose another x, such as 'step'.")
    panels = {"loss": ("Loss minimised in training", "loss (nats)")}
    if any(record.get("bound") is not None for history in histories.values() for record in history):
        panels["bound"] = ("Estimated mutual information, from below", "lower bound (nats)")
    with house_figure(path, height=3.7, width=WIDTH if len(panels) == 2 else 0.65 * WIDTH) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (key, (title, label)) in zip(grid, panels.items(), strict=True):
            for index, (name, history) in enumerate(histories.items()):
                points = [(record[x], record[key]) for record in history if record.get(key) is not None]
                if points:
                    _curve(axes, *map(list, zip(*points, strict=True)), name, line_style(index))
            axes.set(title=title, xlabel=UNITS.get(x, x), ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=x != "epoch"))
        legend_above(figure, grid)
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
    require_data([record for history in histories.values() for record in history], "the histories hold no records")
    records = [record for history in histories.values() for record in history]
    layers = list(dict.fromkeys(key for record in records for key in record if key not in ("epoch", "step")))
    require_data(layers, "the records hold no layer's accuracy")
    columns = 2 if len(histories) in (2, 4) else min(len(histories), 3)
    lines = math.ceil(len(histories) / columns)
    width = WIDTH if columns > 1 else 0.65 * WIDTH
    with house_figure(path, height=0.4 + 3.2 * lines, width=width) as figure:
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for axes, (name, history) in zip(grid, histories.items(), strict=False):
            for index, layer in enumerate(layers):
                points = [(record["epoch"], 100 * record[layer]) for record in history if layer in record]
                # A run without this layer still names it, so that one legend serves all panels.
                epochs, accuracies = map(list, zip(*points, strict=True)) if points else ([], [])
                axes.plot(epochs, accuracies, marker="o", markersize=3.5, label=layer, **line_style(index))
            if chance is not None:
                axes.axhline(100 * chance, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="chance")
            axes.set(title=name, xlabel="epochs")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        for axes in grid[::columns]:
            axes.set_ylabel(f"kNN accuracy, {target} (%)")
        for axes in grid[len(histories) :]:
            axes.remove()
        legend_above(figure, grid)
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
    with house_figure(path, height=0.65 + header + 0.36 * len(row_names), width=width) as figure:
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
        house_title(figure, title)
    return Path(path)
