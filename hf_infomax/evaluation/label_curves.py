"""Few-label curves: how much of what a representation knows is read with 1, 10 or 100 labels of each class."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from hf_infomax.models.errors import UsageError

from .series import RAW_PIXELS, legend_above, outcome, outcome_label, panel_grid, row_style
from .style import WIDTH, house_figure, require_data
from .table import Row

#: The probe with all labels, whose row ends a curve.
ALL_LABELS = "linear"
_FEW_LABELS = re.compile(rf"{ALL_LABELS}, (\d+) labels? per class")


def few_labels_probe(count: int) -> str:
    """The probe's name in a `Row`, where the linear probe is fitted on `count` labels of each class; see `labels_per_class`.

    Raises:
        UsageError: the count is not positive.

    >>> few_labels_probe(10)
    'linear, 10 labels per class'
    """
    if count < 1:
        raise UsageError(f"A probe cannot be fitted on {count} labels per class: choose 1 or more.")
    return f"{ALL_LABELS}, {count} label{'s' if count > 1 else ''} per class"


def labels_per_class(probe: str) -> float | None:
    """How many labels of each class a probe of that name is fitted on: infinity for all; None where it is no point of a curve.

    >>> labels_per_class("linear, 10 labels per class"), labels_per_class("linear"), labels_per_class("knn20")
    (10, inf, None)
    """
    if probe == ALL_LABELS:
        return math.inf
    found = _FEW_LABELS.fullmatch(probe)
    return int(found[1]) if found else None


def is_few_labels(row: Row) -> bool:
    """Whether a row belongs to a few-label curve alone, and to no table or figure of probes with all labels.

    >>> is_few_labels(Row("DIM", "conv", few_labels_probe(1), "label", "digits", "test", "accuracy", 0.3))
    True
    """
    return labels_per_class(row.probe) not in (None, math.inf)


def plot_label_curves(rows: Sequence[Row], path: str | os.PathLike[str], target: str | None = None) -> Path:
    """Accuracy against labels per class, on a logarithmic axis: a panel for each layer, a line for each model.

    Bands are one standard deviation over draws. The linear probe with all labels ends each curve, one decade after the largest
    count, and is named "all", since its number of labels is the dataset's own. Raw pixels are a dashed line in every panel.

    Args:
        rows: summarised over seeds; those of the probes that `few_labels_probe` names are drawn, and of "linear" where a model
            and layer have such. A `std` of None draws no band.
        path: of the PNG.
        target: what is read; None: that of the first few-label row.

    Raises:
        UsageError: no row is of a few-label probe.

    See also `plot_layers`, which compares the layers with all labels.
    """
    few = [row for row in rows if is_few_labels(row) and target in (None, row.target)]
    require_data(few, "no row is of a few-label probe")
    drawn = {(row.model, row.layer, row.target, row.metric) for row in few if row.target == few[0].target}
    points = [
        row for row in rows if labels_per_class(row.probe) and (row.model, row.layer, row.target, row.metric) in drawn
    ]
    models = list(dict.fromkeys(row.model for row in points if row.layer != RAW_PIXELS))
    layers = list(dict.fromkeys(row.layer for row in points if row.layer != RAW_PIXELS)) or [RAW_PIXELS]
    places = _places([row.probe for row in points])
    columns = min(3, len(layers))
    height, width = 0.9 + 3.1 * math.ceil(len(layers) / columns), (0.65, 0.9, 1.0)[columns - 1] * WIDTH
    with house_figure(path, height=height, width=width) as figure:
        panels = panel_grid(figure, len(layers), columns, sharey=True)
        for axes, layer in zip(panels, layers, strict=True):
            for model in dict.fromkeys(row.model for row in points):
                curve = [row for row in points if row.model == model and row.layer in (layer, RAW_PIXELS)]
                if curve:
                    _draw_curve(axes, curve, places, row_style(curve[0], models))
            axes.set(title=layer, xlabel="labels per class", xscale="log")
            axes.set_xticks(list(places.values()), [_count_name(probe) for probe in places], minor=False)
            axes.xaxis.set_minor_locator(NullLocator())
        for axes in panels[::columns]:
            axes.set_ylabel(outcome_label(points[0]))
        legend_above(figure, panels)
    return Path(path)


def _places(probes: Sequence[str]) -> dict[str, float]:
    """Where each probe stands: at its number of labels, and the one with all labels a decade after the largest number."""
    counts = {probe: labels_per_class(probe) for probe in probes}
    end = 10 * max(count for count in counts.values() if math.isfinite(count))
    return {probe: min(count, end) for probe, count in counts.items()}


def _count_name(probe: str) -> str:
    count = labels_per_class(probe)
    return f"{count:,}" if math.isfinite(count) else "all"


def _draw_curve(axes: Axes, curve: Sequence[Row], places: dict[str, float], style: dict[str, Any]) -> None:
    curve = sorted(curve, key=lambda row: places[row.probe])
    x = [places[row.probe] for row in curve]
    y, spread = np.array([outcome(row) for row in curve]).T
    axes.plot(x, y, label=curve[0].model, markersize=4.5, **style)
    axes.fill_between(x, y - spread, y + spread, color=style["color"], alpha=0.13, linewidth=0)
