"""The house style of all figures: palette, fonts, and a figure that saves itself. No global state of matplotlib is left."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hf_infomax.models.errors import UsageError

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


@contextmanager
def house_figure(path: str | os.PathLike[str], height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A blank figure in the house style, saved to `path` and emptied when the block ends."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # The software's name and version would make equal figures differ from one machine to the next.
        figure.savefig(path, format="png", metadata={"Software": None})
        figure.clear()


def require_data(data: Any, what: str) -> None:
    """Refuse to draw nothing.

    Raises:
        UsageError: there are no data.
    """
    if len(data) == 0:
        raise UsageError(f"There is nothing to draw: {what}.")


def house_title(figure: Figure, text: str) -> None:
    """One title for all panels, at the left."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")
