"""The picture of a comparison: every run's mean and spread over seeds, layer by layer."""

import os
from collections.abc import Sequence
from pathlib import Path

from .style import PALETTE, house_figure, house_title, require_data
from .table import PERCENT, Row


def plot_comparison(rows: Sequence[Row], path: str | os.PathLike[str], title: str = "") -> Path:
    """A panel for each probe, a line for each model, a dot for each layer with a bar of one standard deviation over seeds.

    Args:
        rows: summarised over seeds, of one target; see `summarise`.
        path: of the PNG.
        title: states what is seen.

    Raises:
        UsageError: there are no rows.
    """
    require_data(rows, "the comparison has no rows")
    probes = list(dict.fromkeys((row.probe, row.metric) for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    layers = list(dict.fromkeys(row.layer for row in rows))
    with house_figure(path, height=1.3 + 0.36 * len(models)) as figure:
        grid = figure.subplots(1, len(probes), squeeze=False, sharey=True)[0]
        for axes, (probe, metric) in zip(grid, probes, strict=True):
            for index, layer in enumerate(layers):
                found = [row for row in rows if (row.probe, row.metric, row.layer) == (probe, metric, layer)]
                scale = 100 if metric in PERCENT else 1
                axes.errorbar(
                    [scale * row.value for row in found],
                    [models.index(row.model) + 0.13 * (index - (len(layers) - 1) / 2) for row in found],
                    xerr=[scale * (row.std or 0.0) for row in found],
                    fmt="o",
                    markersize=5,
                    capsize=2.5,
                    color=PALETTE[index % len(PALETTE)],
                    label=layer,
                )
            axes.set(title=probe, xlabel=f"{metric} (%)" if metric in PERCENT else metric)
            axes.set_yticks(range(len(models)), models)
        grid[0].invert_yaxis()
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        if title:
            house_title(figure, title)
    return Path(path)
