"""Projections: a representation as a picture, each image a dot of its class's colour."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from hf_infomax.models.errors import UsageError, choose

from .features import require_finite
from .series import panel_grid
from .style import WIDTH, house_figure, require_data

#: Petroff's ten colours (2021, arXiv:2107.02270), chosen by numerical models of colour blindness to be told apart as dots.
CLASS_COLOURS = (
    "#3F90DA", "#FFA90E", "#BD1F01", "#94A4A2", "#832DB6", "#A96B59", "#E76300", "#B9AC70", "#717581", "#92DADD",
)  # fmt: skip
#: Dots of the classes that no colour is left for.
OTHER_CLASSES = "#E4E7EB"
#: Components that t-SNE is given: the rest is mostly noise, and distances among them cost less.
COMPONENTS = 50
#: Of t-SNE, half of scikit-learn's default, at half the time.
ITERATIONS = 500


def _pca(features: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """(N, F) -> (N, dimensions), with zeros where the features have fewer."""
    found = PCA(min(dimensions, *features.shape), random_state=seed).fit_transform(features)
    return np.pad(found, ((0, 0), (0, dimensions - found.shape[1])))


def _tsne(features: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    # A third of the others at most: t-SNE asks for fewer neighbours than there are points, and 30 is its usual number.
    perplexity = min(30.0, (len(features) - 1) / 3)
    start = _pca(features, COMPONENTS, seed)
    tsne = TSNE(dimensions, perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed)
    return tsne.fit_transform(start)


#: Name -> (features (N, F), dimensions, seed) -> (N, dimensions).
PROJECTIONS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {"tsne": _tsne, "pca": _pca}


def project(features: Tensor, method: str = "tsne", seed: int = 0) -> Tensor:
    """Features in two dimensions, to be looked at and not to be measured.

    "pca" keeps the two directions of most variance; distances in it are real ones, seen from one side. "tsne" keeps who is near
    to whom, after PCA to 50 components; distances between its clusters and their sizes say nothing. The map starts from the
    PCA's, and the same features and seed give the same one.

    Args:
        features: (N, F), any device; N from 4 up. Two thousand take seconds; the time of "tsne" grows as N log N.
        method: "tsne" or "pca".
        seed: of both.

    Returns:
        (N, 2) float32 on the CPU. All zeros where all features are equal: an encoder that has collapsed is one dot.

    Raises:
        UsageError: there are fewer than 4 images, a feature is not finite, or there is no such method.

    Source: van der Maaten and Hinton 2008, Visualizing Data using t-SNE; both by scikit-learn. How well neighbours agree in class
    is measured, in all dimensions, by `knn_accuracy`.

    >>> project(torch.tensor([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]]), "pca").abs().round().tolist()
    [[3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    projection = choose("projection", method, PROJECTIONS)
    if features.dim() != 2 or len(features) < 4:
        raise UsageError(f"Features to project have shape {tuple(features.shape)}: give (N, F) with N from 4 up.")
    require_finite(features=features)
    points = features.detach().cpu().float().numpy()
    if (points == points[0]).all():
        return torch.zeros(len(points), 2)
    return torch.from_numpy(projection(points, 2, seed).astype(np.float32))


def plot_projection(
    projections: Mapping[str, Tensor],
    labels: Tensor,
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
) -> Path:
    """A panel for each model, a dot for each image in its class's colour, and one legend. The axes have no unit.

    Of more than ten classes the first ten are coloured, since more colours are not told apart; the others are pale.

    Args:
        projections: name of the model -> (N, 2), see `project`; of the same images.
        labels: (N,) classes, from 0.
        path: of the PNG.
        class_names: of all classes, in order; None: their numbers.

    Raises:
        UsageError: there is nothing to draw, or points, labels and names do not fit each other.
    """
    require_data(projections, "no model's projection")
    require_data(labels, "the projections have no images")
    for name, points in projections.items():
        if points.shape != (len(labels), 2):
            raise UsageError(f"{name} has points of shape {tuple(points.shape)}: give (N, 2) with N = {len(labels)}.")
    classes = labels.detach().cpu().numpy()
    if class_names is not None and classes.max() >= len(class_names):
        raise UsageError(f"There are {len(class_names)} class names and a label {classes.max()}: name every class.")
    present = np.unique(classes)
    names = {label: str(label) if class_names is None else class_names[label] for label in present}
    coloured = present[: len(CLASS_COLOURS)]
    columns = min(len(projections), 2 if len(projections) in (2, 4) else 3)
    lines = -(-len(projections) // columns)
    width = (0.62, 0.9, 1.0)[columns - 1] * WIDTH
    with house_figure(path, height=lines * (width / columns) + 0.5, width=width) as figure:
        panels = panel_grid(figure, len(projections), columns)
        for axes, (model, points) in zip(panels, projections.items(), strict=True):
            _draw_classes(axes, points.detach().cpu().numpy(), classes, {label: names[label] for label in coloured})
            axes.set_title(model)
        handles, texts = panels[0].get_legend_handles_labels()
        legend = figure.legend(
            handles, texts, loc="outside lower left", ncols=max(2, int(width // 1.45)), handletextpad=0.1
        )
        for handle in legend.legend_handles:
            handle.set(sizes=[36], alpha=1)
    return Path(path)


def _draw_classes(axes: Axes, points: np.ndarray, classes: np.ndarray, names: Mapping[int, str]) -> None:
    # Fewer points get larger dots; a random order, so that no class covers the others.
    size = float(np.clip(9000 / len(points), 4, 40))
    others = ~np.isin(classes, list(names))
    axes.scatter(*points[others].T, s=size, color=OTHER_CLASSES, linewidths=0)
    colours = dict(zip(names, CLASS_COLOURS, strict=False))
    order = np.random.default_rng(0).permutation(np.flatnonzero(~others))
    axes.scatter(*points[order].T, s=size, c=[colours[label] for label in classes[order]], alpha=0.8, linewidths=0)
    for label, name in names.items():
        axes.scatter([], [], color=colours[label], linewidths=0, label=name)  # for the legend
    if others.any():
        axes.scatter([], [], color=OTHER_CLASSES, linewidths=0, label="other classes")
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(True)
