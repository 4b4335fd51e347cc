"""Layer curves: what is known at each layer of an encoder, from the input to the output."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from .label_curves import is_few_labels
from .series import RAW_PIXELS, legend_above, outcome, outcome_label, panel_grid, row_style
from .style import WIDTH, house_figure, require_data
from .table import Row


def plot_layers(rows: Sequence[Row], path: str | os.PathLike[str], target: str = "label") -> Path:
    """What each layer knows of a target: a panel for each probe, a line for each model, from the input to the output.

    Bars are one standard deviation over seeds; the models stand a little beside each other, so that a dozen do not hide each
    other's bars. Raw pixels are a dashed line. Layers stand in the order in which the rows first name them.

    Args:
        rows: summarised over seeds. Few-label probes have a figure of their own, see `plot_label_curves`, and are passed over.
        path: of the PNG.
        target: what is read, one of the rows' targets.

    Raises:
        UsageError: no row reads that target from a layer.

    Source: the layers of Hjelm et al. 2019 (DIM), Tables 1 and 2 (conv, fc, Y), as a picture. The same rows with the layers as
    colours and the models as lines are `plot_comparison`'s.
    """
    asked = [row for row in rows if row.target == target and not is_few_labels(row) and math.isfinite(row.value)]
    layers = list(dict.fromkeys(row.layer for row in asked if row.layer != RAW_PIXELS))
    require_data(layers, f"no row reads '{target}' from a layer")
    models = list(dict.fromkeys(row.model for row in asked if row.layer != RAW_PIXELS))
    probes = list(dict.fromkeys((row.probe, row.metric) for row in asked if row.layer != RAW_PIXELS))
    columns = min(len(probes), 2 if len(probes) in (2, 4) else 3)
    lines = math.ceil(len(probes) / columns)
    with house_figure(path, height=0.9 + 3.1 * lines, width=WIDTH if columns > 1 else 0.65 * WIDTH) as figure:
        panels = panel_grid(figure, len(probes), columns)
        for axes, (probe, metric) in zip(panels, probes, strict=True):
            of_probe = [row for row in asked if (row.probe, row.metric) == (probe, metric)]
            for model in dict.fromkeys(row.model for row in of_probe):
                _draw_model(axes, [row for row in of_probe if row.model == model], layers, models)
            axes.set_xticks(range(len(layers)), layers)
            axes.set_xlim(-0.4, len(layers) - 0.6)
            axes.grid(visible=False, axis="x")
            axes.set(title=probe, ylabel=outcome_label(of_probe[0]))
        legend_above(figure, panels)
    return Path(path)


def _draw_model(axes: Axes, rows: Sequence[Row], layers: Sequence[str], models: Sequence[str]) -> None:
    """One model's line through its layers, or the level of raw pixels."""
    style = row_style(rows[0], models)
    if rows[0].layer == RAW_PIXELS:
        axes.axhline(outcome(rows[0])[0], label=rows[0].model, **style)
        return
    aside = 0.5 * ((models.index(rows[0].model) + 0.5) / len(models) - 0.5)
    x, y, spread = zip(*sorted((layers.index(row.layer) + aside, *outcome(row)) for row in rows), strict=True)
    axes.plot(x, y, label=rows[0].model, markersize=4.5, **style)
    axes.errorbar(x, y, yerr=spread, fmt="none", capsize=2, elinewidth=1.1, ecolor=style["color"])
