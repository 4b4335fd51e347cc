"""Series of a figure: how many lines are told apart, and one legend that names them for all panels."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import DASHES, MUTED, PALETTE
from .table import PERCENT, Row

#: The layer of the rows that read the images themselves.
RAW_PIXELS = "pixels"

#: Shapes as well as colours and dashes: a dozen models are told apart in grey print and where lines are short.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def line_style(index: int) -> dict[str, str]:
    """Colour and dash of the line of that index, for curves of so many points that markers would hide them."""
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": DASHES[index // len(PALETTE) % len(DASHES)]}


def series_style(index: int) -> dict[str, Any]:
    """Colour, dash and marker of the series of that index: no two of the first 28 are alike.

    >>> (
    ...     series_style(0)["color"] == series_style(7)["color"],
    ...     series_style(0)["linestyle"] == series_style(7)["linestyle"],
    ... )
    (True, False)
    """
    return line_style(index) | {"marker": MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]}


def row_style(row: Row, models: Sequence[str]) -> dict[str, Any]:
    """The style of a row's series: raw pixels are a dashed grey line, each of `models` has its own."""
    if row.layer == RAW_PIXELS:
        return {"color": MUTED, "linestyle": (0, (4, 3)), "linewidth": 1.2}
    return series_style(models.index(row.model))


def outcome_label(row: Row) -> str:
    """What an axis of the row's values is called, with the unit: "label, accuracy (%)"."""
    return f"{row.target}, {row.metric} (%)" if row.metric in PERCENT else f"{row.target}, {row.metric}"


def outcome(row: Row) -> tuple[float, float]:
    """A row's value and its spread over seeds, zero where there is none, in the unit of `outcome_label`."""
    scale = 100 if row.metric in PERCENT else 1
    return scale * row.value, scale * (row.std or 0.0)


def legend_above(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend above all panels, with every series that any of them draws; none where there is a single series."""
    series = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            series.setdefault(label, handle)
    if len(series) > 1:
        columns = _legend_columns([len(label) for label in series], int(12.5 * figure.get_figwidth()))
        figure.legend(
            series.values(), series, loc="outside upper left", ncols=columns, handlelength=2.4, columnspacing=1.6
        )


def _legend_columns(lengths: Sequence[int], width: int) -> int:
    """How many columns, filled one after the other with names of such lengths, fit into a width, all in characters."""
    for columns in range(len(lengths), 1, -1):
        lines = math.ceil(len(lengths) / columns)
        if sum(max(lengths[start : start + lines]) + 8 for start in range(0, len(lengths), lines)) <= width:
            return columns
    return 1


def panel_grid(figure: Figure, count: int, columns: int, **kwargs: Any) -> list[Axes]:
    """So many panels, in lines of `columns`; `kwargs` as of `Figure.subplots`. Places left over at the end stay blank."""
    lines = math.ceil(count / columns)
    panels = figure.subplots(lines, columns, squeeze=False, **kwargs).ravel()
    for axes in panels[count:]:
        axes.remove()
    return list(panels[:count])
