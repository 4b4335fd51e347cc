"""Segmentations as a figure: image, truth and prediction beside each other."""

import os
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from torch import Tensor

from hf_infomax.evaluation.features import to_unit_range
from hf_infomax.evaluation.style import FAINT, PALETTE, WIDTH, house_figure, house_title, require_data
from hf_infomax.models.errors import UsageError


def class_colours(num_classes: int) -> np.ndarray:
    """(num_classes, 3) in [0, 1]: the house palette, and where that is too short twenty colours, again and again."""
    few = num_classes <= len(PALETTE)
    colours = [to_rgb(colour) for colour in PALETTE] if few else list(colormaps["tab20"].colors)
    return np.array([colours[index % len(colours)] for index in range(num_classes)])


def _painted(labels: Tensor, colours: np.ndarray) -> np.ndarray:
    """(H, W) -> (H, W, 3); what is no class is left pale."""
    index = labels.cpu().numpy()
    known = (index >= 0) & (index < len(colours))
    return np.where(known[..., None], colours[np.where(known, index, 0)], to_rgb(FAINT))


def plot_segmentations(
    images: Tensor, labels: Tensor, predicted: Tensor, num_classes: int, path: str | os.PathLike[str], title: str
) -> Path:
    """A column for each image, and below it the true classes and the predicted ones.

    Args:
        images: (n, 3, H, W), uint8 or in [0, 1].
        labels, predicted: (n, H, W) classes; a label that is no class (ignored pixels) is shown pale.
        num_classes: how many colours.
        path: of the PNG.
        title: of the figure.

    Raises:
        UsageError: there is nothing to draw, or there are not as many maps as images.
    """
    require_data(images, "no images")
    if not len(images) == len(labels) == len(predicted):
        raise UsageError(
            f"There are {len(images)} images, {len(labels)} label maps and {len(predicted)} predictions: give as many of each."
        )
    pixels = to_unit_range(images.cpu()).movedim(1, -1).numpy()  # (n, H, W, 3)
    colours = class_colours(num_classes)
    rows = {
        "Image": list(pixels),
        "Truth": [_painted(one, colours) for one in labels],
        "Prediction": [_painted(one, colours) for one in predicted],
    }
    side = min(1.4, (WIDTH - 0.6) / len(images))  # inches of one image
    width = max(0.55 * WIDTH, side * len(images) + 0.6)
    with house_figure(path, height=3 * 1.06 * side + 0.5, width=width) as figure:
        panels = figure.subplots(3, len(images), squeeze=False)
        for line, (name, pictures) in zip(panels, rows.items(), strict=True):
            for axes, picture in zip(line, pictures, strict=True):
                # Small images keep their pixels: blur would show more than the encoder has seen.
                axes.imshow(picture, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(name)
        house_title(figure, title)
    return Path(path)
