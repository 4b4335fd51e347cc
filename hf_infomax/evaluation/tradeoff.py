"""The picture of two measures of the same models against each other: what the views share, and what was learned from them."""

import os
from collections.abc import Sequence
from pathlib import Path

from .naming import name_dots
from .style import PALETTE, house_figure, house_title, require_data
from .table import PERCENT, Row


def plot_tradeoff(
    across: Sequence[Row], up: Sequence[Row], path: str | os.PathLike[str], xlabel: str, ylabel: str, title: str = ""
) -> Path:
    """A dot for each model that has both, with bars of one standard deviation over seeds, and its name.

    Args:
        across, up: summarised rows, one for each model; only models in both are drawn.
        path: of the PNG.
        xlabel, ylabel: of the axes, units included.
        title: states what is seen.

    Raises:
        UsageError: no model is in both.
    """
    heights = {row.model: row for row in up}
    pairs = [(row, heights[row.model]) for row in across if row.model in heights]
    require_data(pairs, "no model has both measures")
    with house_figure(path, height=4.6, width=6.4) as figure:
        axes = figure.subplots()
        names = []
        for index, (x, y) in enumerate(pairs):
            scales = [100 if row.metric in PERCENT else 1 for row in (x, y)]
            color = PALETTE[index % len(PALETTE)]
            spreads = {
                "xerr": scales[0] * (x.std or 0.0),
                "yerr": scales[1] * (y.std or 0.0),
            }
            place = scales[0] * x.value, scales[1] * y.value
            axes.errorbar(*place, fmt="o", markersize=6, capsize=2.5, color=color, **spreads)
            names.append((x.model, place, color))
        axes.margins(0.16)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if title:
            house_title(figure, title)
        name_dots(axes, names)
    return Path(path)
