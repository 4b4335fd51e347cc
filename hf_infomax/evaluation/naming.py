"""Names beside the dots of a picture, where they hide neither each other nor another dot."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

#: Directions that a name may stand in, seen from its dot; the first that is free is taken.
DIRECTIONS = tuple(math.radians(degrees) for degrees in (30, -30, 150, -150, 90, -90, 0, 180, 60, -60, 120, -120))
#: Distances from the dot, in points; a name that stands farther off is tied to its dot by a line.
DISTANCES = (8, 18, 30, 44)
DOT = 5  #: points from a dot's centre that no name may touch


def name_dots(axes: Axes, dots: Sequence[tuple[str, tuple[float, float], str]], fontsize: float = 9) -> list[Bbox]:
    """Write each dot's name at the nearest place around it that is free, or, where none is, at the one that covers least.

    The limits of the axes have to be set before, and the figure needs no further change of its layout afterwards.

    Args:
        axes: the dots are drawn on it.
        dots: (name, (x, y) in data units, colour).
        fontsize: in points.

    Returns:
        Where each name stands, in pixels, in the order of `dots`.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # gives the axes their final place in the figure, and names can be measured
    pixels = figure.dpi / 72  # of a point
    places = axes.transData.transform([place for _, place, _ in dots])
    taken = [Bbox.from_extents(*(place - DOT * pixels), *(place + DOT * pixels)) for place in places]
    found = []
    for (name, place, color), centre in zip(dots, places, strict=True):
        text = axes.annotate(name, place, xytext=(0, 0), textcoords="offset points", color=color, fontsize=fontsize)
        size = text.get_window_extent().size
        offsets = [
            distance * np.array([math.cos(angle), math.sin(angle)]) for distance in DISTANCES for angle in DIRECTIONS
        ]
        boxes = [_box(centre + offset * pixels, offset, size) for offset in offsets]
        covered = [_covered(box, taken, axes.bbox) for box in boxes]
        best = int(np.argmin(covered))  # the first of those that are free
        text.remove()
        # Anchored by its middle, so that the name's box is the one that was tried.
        middle = (boxes[best].get_points().mean(axis=0) - centre) / pixels
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.6, "shrinkB": DOT}
        axes.annotate(
            name, place, xytext=middle, textcoords="offset points", ha="center", va="center", color=color,
            fontsize=fontsize, arrowprops=line if best >= len(DIRECTIONS) else None, annotation_clip=False,
        )  # fmt: skip
        taken.append(boxes[best])
        found.append(boxes[best])
    return found


def _box(corner: np.ndarray, offset: np.ndarray, size: np.ndarray) -> Bbox:
    """A box of that size on the far side of a point, seen from the dot: left of it, right of it, or centred above or below."""
    sides = np.where(
        np.abs(offset) < 1, 0.5, np.where(offset < 0, 1.0, 0.0)
    )  # the part that lies left of or below the point
    return Bbox.from_bounds(*(corner - sides * size), *size)


def _covered(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    """The area of a box, in square pixels, that something else stands on or that lies outside of the axes."""
    overlaps = [Bbox.intersection(box, other) for other in (inside, *taken)]
    areas = [0.0 if overlap is None else overlap.width * overlap.height for overlap in overlaps]
    return box.width * box.height - areas[0] + sum(areas[1:])
