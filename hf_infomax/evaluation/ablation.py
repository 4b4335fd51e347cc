"""Ablations of Deep InfoMax: a folder of runs -> what each weight of the objective does, as heat maps over alpha and beta."""

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hf_infomax.models.configuration_dim import DIMConfig
from hf_infomax.models.errors import UsageError

from .figures import BLUES
from .label_curves import is_few_labels
from .series import RAW_PIXELS
from .style import INK, PALETTE, WIDTH, house_figure, require_data
from .table import LOWER_IS_BETTER, PERCENT, Row, read_results, summarise

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AblationPoint:
    """The runs at one place of the grid: the three weights of eq. 8, and what was measured, summarised over their seeds."""

    alpha: float  #: of the global term
    beta: float  #: of the local term
    gamma: float  #: of prior matching
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Measure:
    """Which row of every point is drawn."""

    layer: str
    probe: str
    metric: str
    target: str = "label"
    model: str = "trained"
    split: str = "test"

    def read(self, point: AblationPoint) -> float:
        """Its value at a point, in per cent where it is a fraction; NaN where the point was not asked."""
        for row in point.rows:
            if all(getattr(row, name) == wanted for name, wanted in vars(self).items()):
                return (100 if self.metric in PERCENT else 1) * row.value
        return math.nan

    @property
    def lower_is_better(self) -> bool:
        return self.metric in LOWER_IS_BETTER

    @property
    def title(self) -> str:
        unit = " (%)" if self.metric in PERCENT else ""
        name = self.metric if self.probe == self.metric else f"{self.probe}, {self.metric}"
        return f"{name}{unit}, {self.layer}"


#: The fields by which a measure finds its row.
_READ_BY = tuple(field.name for field in fields(Measure))


def read_ablation(folder: str | os.PathLike[str], results: str = "results.json") -> list[AblationPoint]:
    """Every Deep InfoMax run below a folder -> one point for each (alpha, beta, gamma), averaged over the runs' seeds.

    The weights are those of the saved model's config.json (of `DIMConfig` where it is silent), the rows those of the results
    beside it, as training and evaluation leave them. A lone run keeps the spread that its rows have; several give the sample
    standard deviation of their values. Runs of another method are passed over, and so are DIM runs without results; how many
    is logged.

    Args:
        folder: holds the runs, at any depth.
        results: name of the file of results in each run's folder.

    Returns:
        In order of gamma, alpha, beta.

    Raises:
        UsageError: there is no DIM run with results, two runs have one seed at the same point (as runs that differ in something
            else than the three weights have), or a file is not what it should be.
    """
    found: dict[tuple[float, float, float], list[Row]] = {}
    configs = sorted(Path(folder).rglob("model/config.json"))
    passed_over = 0
    for path in configs:
        config = _read_config(path)
        run = path.parent.parent
        if config.get("model_type") != DIMConfig.model_type or not (run / results).is_file():
            passed_over += 1
            continue
        weights = tuple(float(config.get(name, getattr(DIMConfig, name))) for name in ("alpha", "beta", "gamma"))
        saved = read_results(run / results)
        # A training's results name its recipe, a comparison's the seed alone.
        seed = saved.run.get("recipe", {}).get("train", {}).get("seed", saved.run.get("seed", 0))
        found.setdefault(weights, []).extend(replace(row, seeds=(seed,)) for row in saved.rows)
    if passed_over:
        logger.warning("%d of %d runs below %s have no DIM model or no %s.", passed_over, len(configs), folder, results)
    if not found:
        raise UsageError(f"No run below '{folder}' has a DIM model and {results}: train and evaluate some first.")
    points = [AblationPoint(*weights, tuple(summarise(rows))) for weights, rows in found.items()]
    return sorted(points, key=lambda point: (point.gamma, point.alpha, point.beta))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not a model's configuration ({error}): move the run away.") from error


def measures_of(points: Sequence[AblationPoint]) -> list[Measure]:
    """What was measured at the last layer of the encoders: the panels of `plot_ablation` where none are asked for.

    Of the model of the first row, so that baselines, which know nothing of the weights, are left out; of the split of its last row,
    since an evaluation adds its rows to those of the training's own monitor. Few-label probes have a figure of their own.
    """
    rows = [row for point in points for row in point.rows if row.layer != RAW_PIXELS and not is_few_labels(row)]
    if not rows:
        return []
    last = [row for row in rows if row.model == rows[0].model][-1]
    asked = [row for row in rows if (row.model, row.layer, row.split) == (last.model, last.layer, last.split)]
    return list(dict.fromkeys(Measure(**{name: getattr(row, name) for name in _READ_BY}) for row in asked))


def plot_ablation(
    points: Sequence[AblationPoint], path: str | os.PathLike[str], measures: Sequence[Measure] | None = None
) -> Path:
    """Heat maps over (alpha, beta): a line of panels for each gamma, a column for each measure, darker for better.

    Each value is written at its point and the best of a panel is ringed. Where all points of a panel's grid were measured,
    the colour between them is interpolated bilinearly; elsewhere each is a cell, and a missing one is blank. Points stand at
    equal distances, whatever their weights; a measure's colours mean the same at every gamma.

    Args:
        points: see `read_ablation`.
        path: of the PNG.
        measures: what to draw; None: `measures_of(points)`.

    Raises:
        UsageError: there is nothing to draw, or no point has one of the measures.

    Source: Hjelm et al. 2019 (DIM), Figure 9.
    """
    measures = measures_of(points) if measures is None else measures
    require_data(points, "the ablation has no points")
    require_data(measures, "the ablation has no measures")
    for measure in measures:
        require_data([point for point in points if np.isfinite(measure.read(point))], f"no run has {measure.title}")
    gammas = sorted({point.gamma for point in points})
    alphas, betas = sorted({point.alpha for point in points}), sorted({point.beta for point in points})
    panel_width = max(2.2, 0.55 * len(alphas) + 0.6)
    panel_height = max(1.7, 0.42 * len(betas) + 0.9)
    height, width = panel_height * len(gammas) + 0.3, max(0.4 * WIDTH, panel_width * len(measures) + 0.3)
    with house_figure(path, height=height, width=width) as figure:
        grid = figure.subplots(len(gammas), len(measures), squeeze=False, sharex=True, sharey=True)
        for column, measure in enumerate(measures):
            values = np.full((len(gammas), len(betas), len(alphas)), np.nan)
            for point in points:
                values[gammas.index(point.gamma), betas.index(point.beta), alphas.index(point.alpha)] = measure.read(
                    point
                )
            for axes, gamma, table in zip(grid[:, column], gammas, values, strict=True):
                axes.set_title(f"{measure.title}\n" * (gamma == gammas[0]) + f"γ = {gamma:g}", fontsize=9.5)
                _draw_map(axes, table, float(np.nanmin(values)), float(np.nanmax(values)), measure)
        for axes in grid.flat:
            axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
            axes.set_yticks(range(len(betas)), [f"{beta:g}" for beta in betas])
        for axes in grid[-1]:
            axes.set_xlabel("α, global")
        for axes in grid[:, 0]:
            axes.set_ylabel("β, local")
    return Path(path)


def _draw_map(axes: Axes, table: np.ndarray, lowest: float, highest: float, measure: Measure) -> None:
    """One panel: `table` (betas, alphas) with its colours, its numbers and a ring around the best."""
    complete = np.isfinite(table).all()
    colours = BLUES.reversed() if measure.lower_is_better else BLUES
    axes.imshow(
        table,
        cmap=colours.with_extremes(bad="#FFFFFF"),
        vmin=lowest,
        vmax=highest if highest > lowest else lowest + 1,  # equal values have one colour
        interpolation="bilinear" if complete else "nearest",
        origin="lower",
        aspect="auto",
    )
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if not np.isfinite(table).any():
        return
    best = np.nanargmin(table) if measure.lower_is_better else np.nanargmax(table)
    for place, value in enumerate(table.flat):
        if np.isfinite(value):
            row, column = np.unravel_index(place, table.shape)
            share = (value - lowest) / (highest - lowest or 1)
            dark = (1 - share if measure.lower_is_better else share) > 0.7
            text = f"{value:.1f}" if measure.metric in PERCENT else f"{value:.2f}"
            box = {"boxstyle": "round,pad=0.25", "facecolor": "none", "edgecolor": PALETTE[1], "linewidth": 1.8}
            axes.text(
                column, row, text, ha="center", va="center", fontsize=8.5, color="white" if dark else INK,
                fontweight="bold" if place == best else "normal", bbox=box if place == best else None,
            )  # fmt: skip
