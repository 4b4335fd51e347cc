"""The sweet spot: what is learned from views that share more and less, a reverse-U fitted to it, and its picture."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from hf_infomax.models.errors import UsageError

from .style import INK, MUTED, PALETTE, house_figure, house_title, require_data


@dataclass(frozen=True)
class SweepPoint:
    """What was measured at one value of a strength: means over seeds, and how far they can be trusted."""

    name: str  #: to show, such as "0.2"
    information: float  #: nats
    accuracy: float  #: a fraction
    information_spread: float = 0.0  #: nats; one standard deviation over seeds
    accuracy_spread: float = 0.0  #: the same of the accuracy, or its standard error where there is one seed


@dataclass(frozen=True)
class ReverseU:
    """A parabola through measured points, and whether it is a reverse-U."""

    coefficients: tuple[
        float, float, float
    ]  #: a, b, c of a I^2 + b I + c, with I in nats; NaN where none could be fitted
    best: int  #: the place, among the given points, of the best accuracy
    why_not: str  #: why no reverse-U was seen, for the end of a sentence; empty where it was

    @property
    def seen(self) -> bool:
        return not self.why_not

    @property
    def peak(self) -> float | None:
        """Where the parabola is highest, in nats; None where it does not open downwards."""
        a, b, _ = self.coefficients
        return -b / (2 * a) if a < 0 else None

    def __call__(self, information: float | np.ndarray) -> Any:
        """The parabola's accuracy."""
        return np.polyval(self.coefficients, information)


def fit_reverse_u(
    information: Sequence[float], accuracy: Sequence[float], spread: Sequence[float] | None = None
) -> ReverseU:
    r"""Accuracy over shared information: too much of it and too little are both bad, if the measured points say so.

    .. math:: \hat A(I) = a I^2 + b I + c

    by least squares. A reverse-U is seen where all of this holds: a < 0; the peak -b / 2a lies strictly between the least and the
    greatest information; and the best measured accuracy A belongs to neither of these two, and exceeds both by more than chance
    moves the difference,

    .. math:: A_{best} - A_{end} > \sqrt{\sigma_{best}^2 + \sigma_{end}^2}

    The hypothesis is that of Tian et al. 2020, "What makes for good views", Figure 2; the test is ours. The picture is
    `plot_sweet_spot`.

    Args:
        information: I, nats, of each value of a strength.
        accuracy: A of the same.
        spread: sigma of each accuracy; None: the accuracies are exact.

    Raises:
        UsageError: the lists differ in length, or hold nothing or a number that is not finite.

    >>> nats, accuracy = [2.0, 3.0, 4.0, 5.0], [0.50, 0.62, 0.66, 0.62]
    >>> found = fit_reverse_u(nats, accuracy, spread=[0.01] * 4)
    >>> found.seen, round(found.peak, 2), nats[found.best]
    (True, 4.0, 4.0)
    >>> fit_reverse_u([2.0, 3.0, 4.0], [0.5, 0.6, 0.7]).why_not
    'the best is at the end of most information'
    """
    spread = [0.0] * len(accuracy) if spread is None else spread
    if not len(information) == len(accuracy) == len(spread) > 0:
        raise UsageError("A fit needs information, accuracy and spread of the same points: give lists of one length.")
    if not np.isfinite([*information, *accuracy, *spread]).all():
        raise UsageError("A measured point is NaN or infinite: leave it out of the fit.")
    best = int(np.argmax(accuracy))
    if len(set(information)) < 3:
        return ReverseU((math.nan,) * 3, best, "that takes three points or more")
    a, b, c = (float(number) for number in np.polyfit(information, accuracy, deg=2))
    fit = ReverseU((a, b, c), best, "")
    ends = {"least": int(np.argmin(information)), "most": int(np.argmax(information))}
    why_not = ""
    for name, end in ends.items():
        if end == best:
            why_not = f"the best is at the end of {name} information"
        elif not why_not and accuracy[best] - accuracy[end] <= math.hypot(spread[best], spread[end]):
            why_not = f"the best is not above the end of {name} information by more than chance moves it"
    if not why_not and fit.peak is None:
        why_not = "the parabola opens upwards"
    if not why_not and not information[ends["least"]] < fit.peak < information[ends["most"]]:
        why_not = "the parabola's peak is outside of what was measured"
    return ReverseU((a, b, c), best, why_not)


def plot_sweet_spot(
    points: Sequence[SweepPoint],
    fit: ReverseU,
    path: str | os.PathLike[str],
    strength: str,
    xlabel: str = "I_NCE between two views of an image (nats)",
    ylabel: str = "linear accuracy (%)",
    title: str = "",
    untrained: float | None = None,
    ordered: bool = True,
) -> Path:
    """Dots in order of strength, from pale to dark, each named; the reverse-U where one was seen, and the sweet spot.

    Args:
        points: in order of the strength; with bars of their spreads.
        fit: of the same points, by `fit_reverse_u`.
        path: of the PNG.
        strength: of the sweet spot's name, such as "c" for "c = 0.2"; may be empty.
        xlabel, ylabel: of the axes, units included.
        title: states what is seen.
        untrained: accuracy of an encoder that was not trained, a line below.
        ordered: the values follow upon each other, and a line joins them.

    Raises:
        UsageError: there are no points.
    """
    require_data(points, "the sweep has no points")
    x, y = [point.information for point in points], [100 * point.accuracy for point in points]
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.12, 0.95, len(points)))
    with house_figure(path, height=4.8, width=7.2) as figure:
        axes = figure.subplots()
        if ordered:
            axes.plot(x, y, color="#C3CAD2", linewidth=1.2, zorder=1)
        if fit.seen:
            across = np.linspace(min(x), max(x), 200)
            axes.plot(across, 100 * fit(across), "--", color=PALETTE[1], linewidth=1.6, zorder=2, label="reverse-U")
            axes.axvline(fit.peak, color=PALETTE[1], linewidth=0.9, linestyle=":", zorder=1)
            axes.annotate(
                f"the parabola's peak, {fit.peak:.2f} nats",
                (fit.peak, 0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 5),
                textcoords="offset points",
                color=PALETTE[1],
                fontsize=9,
            )
        for point, shade in zip(points, shades, strict=True):
            axes.errorbar(
                point.information,
                100 * point.accuracy,
                xerr=point.information_spread,
                yerr=100 * point.accuracy_spread,
                fmt="o",
                color=shade,
                ecolor="#9AA5B1",
                elinewidth=0.9,
                capsize=2,
                markersize=7.5,
                zorder=3,
            )
        axes.plot(x[fit.best], y[fit.best], "o", markersize=15, markerfacecolor="none", color=PALETTE[1], zorder=4)
        if untrained is not None:
            axes.axhline(100 * untrained, color=MUTED, linewidth=1, linestyle="-.", zorder=0)
            axes.annotate(
                "untrained",
                (1, 100 * untrained),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 3),
                textcoords="offset points",
                ha="right",
                color=MUTED,
                fontsize=9,
            )
        axes.margins(0.13)
        _name_points(axes, points, fit, strength)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if title:
            house_title(figure, title)
    return Path(path)


def _name_points(axes: Any, points: Sequence[SweepPoint], fit: ReverseU, strength: str) -> None:
    """Each dot's name, to the side on which its neighbours along the curve are not."""
    axes.autoscale_view()
    places = axes.transData.transform([(point.information, 100 * point.accuracy) for point in points])
    for index, (point, place) in enumerate(zip(points, places, strict=True)):
        away = np.zeros(2)
        for neighbour in (index - 1, index + 1):
            if 0 <= neighbour < len(points):
                step = place - places[neighbour]
                away += step / (np.linalg.norm(step) or 1.0)
        if np.linalg.norm(away) < 0.25:  # on a straight stretch
            away = np.array([0.0, 1.0])
        dx, dy = away / np.linalg.norm(away)
        named = f"{strength} = {point.name}" if strength else point.name
        text, reach = (f"sweet spot, {named}", 17) if index == fit.best and fit.seen else (point.name, 12)
        text = f"best, {named}" if index == fit.best and not fit.seen else text
        axes.annotate(
            text,
            (point.information, 100 * point.accuracy),
            xytext=(reach * dx, reach * dy),
            textcoords="offset points",
            ha="left" if dx > 0.4 else "right" if dx < -0.4 else "center",
            va="bottom" if dy > 0.4 else "top" if dy < -0.4 else "center",
            color=PALETTE[1] if index == fit.best else INK,
            fontweight="bold" if index == fit.best else "normal",
            fontsize=9,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},  # lines pass below
        )
