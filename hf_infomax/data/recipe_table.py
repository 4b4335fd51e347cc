"""The table of the recipes of views: for every view of a batch its augmentations, each with its arguments.

What is worth sliding is a `Strength`, what follows from the side of the view is `Sized`. A new recipe is a new entry of
`RECIPES`. `recipes` makes modules of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .augmentations import (
    Augmentation,
    ColorJitter,
    DistantPatches,
    FrequencySeparation,
    GaussianBlur,
    HorizontalFlip,
    JigsawPatches,
    Occlusion,
    RandAugment,
    RandomCrop,
    RandomGrayscale,
    RandomResizedCrop,
)


@dataclass(frozen=True)
class Strength:
    """An argument that a user may set by its name."""

    name: str
    default: float


@dataclass(frozen=True)
class Sized:
    """An argument that follows from the side of the view: a key of `SIZES`."""

    rule: str


SIZES = {
    "view": lambda side: side,
    "tenth": lambda side: max(3, side // 10 // 2 * 2 + 1),  # SimCLR's blur: a tenth of the side, odd
    "grid": lambda side: JigsawPatches.scaled(side).size,
    "cell": lambda side: JigsawPatches.scaled(side).cell,
    "patch": lambda side: JigsawPatches.scaled(side).patch,
}

Step = tuple[type[Augmentation], Mapping[str, Any]]


@dataclass(frozen=True)
class View:
    """One named tensor of the batch.

    Attributes:
        steps: the augmentations, each with its arguments.
        crops: V, for (B, V, 3, h, w), every crop with random numbers of its own; None for (B, 3, h, w).
        side: the view's side as a part of the image size that `load` is given.
        of: another view, a single crop without columns of its own, whose result the steps begin with; None: the image.
    """

    steps: tuple[Step, ...] = ()
    crops: int | None = None
    side: float = 1.0
    of: str | None = None


Recipe = Mapping[str, View]


def _crop(least: float, name: str = "crop", size: str = "view") -> Step:
    return RandomResizedCrop, {"size": Sized(size), "scale": (Strength(name, least), 1.0)}


def _jitter(brightness: float, contrast: float, saturation: float, hue: float, probability: float = 0.8) -> Step:
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    return ColorJitter, {
        **strengths,
        "strength": Strength("jitter", 1.0),
        "probability": Strength("jitter_probability", probability),
    }


_FLIP: Step = (HorizontalFlip, {"probability": Strength("flip", 0.5)})
_GREY: Step = (RandomGrayscale, {"probability": Strength("grayscale", 0.2)})
_BLUR: Step = (
    GaussianBlur,
    {
        "kernel_size": Sized("tenth"),
        "sigma": (0.1, Strength("blur_sigma", 2.0)),
        "probability": Strength("blur", 0.5),
    },
)
# timm's "rand-m10-n2-mstd0.5", in which a larger magnitude does not posterise or solarise more.
_RANDAUGMENT: Step = (
    RandAugment,
    {
        "increasing": False,
        "fill": (0.485, 0.456, 0.406),  # ImageNet's mean
        "layers": Strength("layers", 2),
        "magnitude": Strength("magnitude", 10.0),
        "magnitude_std": Strength("magnitude_std", 0.5),
    },
)
_CUT: Step = (JigsawPatches, {"cell": Sized("cell"), "patch": Sized("patch"), "shuffled": True})
_DISTORTION = (_jitter(0.8, 0.8, 0.8, 0.2), _GREY)  # SimCLR's, at strength x = 1
# PIRL cuts a crop of at least 0.6 of the image, changes the colours of each patch by itself, and shuffles them.
_JIGSAW = View((_crop(0.6, "jigsaw_crop", "grid"), _FLIP, _CUT, *_DISTORTION))
# Of the very crop that pixel_values is: what is hidden in one is seen in the other.
_OCCLUDED = View(((Occlusion, {"block": Strength("block", 10)}),), of="pixel_values")

RECIPES: dict[str, Recipe] = {
    # Deep InfoMax's own (Hjelm et al., 2019): the image as it is; random crops and flips of STL-10.
    "dim": {"pixel_values": View()},
    "dim_stl": {"pixel_values": View(((RandomCrop, {"size": Sized("view")}), _FLIP))},
    # The same with an occluded copy, from which the global vector is computed (4.3, A.6).
    "dim_occluded": {"pixel_values": View(), "occluded_values": _OCCLUDED},
    "dim_stl_occluded": {
        "pixel_values": View(((RandomCrop, {"size": Sized("view")}), _FLIP)),
        "occluded_values": _OCCLUDED,
    },
    # The usual light augmentation of small images.
    "crop_flip": {
        "pixel_values": View(((RandomCrop, {"size": Sized("view"), "padding": Strength("padding", 4)}), _FLIP))
    },
    # Contrastive Multiview Coding (Tian et al., 2020): torch's default; with RandAugment as in its Table 1.
    "cmc": {"pixel_values": View((_crop(0.08), _FLIP))},
    "cmc_randaugment": {"pixel_values": View((_crop(0.08), _FLIP, _RANDAUGMENT))},
    # Instance discrimination (Wu et al., 2018), also that of LA, BALL and ANN: one augmentation, against a bank.
    "instdisc": {"pixel_values": View((_crop(0.2), _GREY, _jitter(0.4, 0.4, 0.4, 0.4, probability=1.0), _FLIP))},
    # SimCLR (Chen et al., 2020); on CIFAR-10 it takes jitter=0.5 and blur=0.
    "simclr": {"pixel_values": View((_crop(0.08), _FLIP, *_DISTORTION, _BLUR), crops=2)},
    # MoCo v2 (Chen et al., 2020).
    "moco_v2": {"pixel_values": View((_crop(0.2), _jitter(0.4, 0.4, 0.4, 0.1), _GREY, _BLUR, _FLIP), crops=2)},
    # PIRL (Misra and van der Maaten, 2020): an image, and the nine patches of another crop of it.
    "pirl": {"pixel_values": View((_crop(0.08), _FLIP, *_DISTORTION)), "jigsaw_values": _JIGSAW},
    # InfoMin Aug (Tian et al., 2020, C.1 to C.3): crop bound c = 0.2, jitter x = 1, blur, RandAugment, greys, jigsaw.
    "infomin": {
        "pixel_values": View((_crop(0.2), _FLIP, _jitter(0.8, 0.8, 0.8, 0.2), _BLUR, _RANDAUGMENT, _GREY), crops=2),
        "jigsaw_values": _JIGSAW,
    },
    # Pairs (Tian et al., 2020, B.1 and B.3). The patches are cut as they are from images that must be larger than
    # image_size + distance: data.shorter_side keeps them so. d slides from 64 on at 64 pixels, sigma about 0.7.
    "patches": {
        "pixel_values": View(((DistantPatches, {"size": Sized("view"), "distance": Strength("distance", 64)}),))
    },
    "frequency": {"pixel_values": View((_crop(0.08), _FLIP, (FrequencySeparation, {"sigma": Strength("sigma", 1.0)})))},
}

# What leaves each part of InfoMin Aug out, in the order in which they are added.
_WITHOUT: dict[str, dict[str, Any]] = {
    "crop": {},
    "jitter": {"jitter": 0.0},
    "blur": {"blur": 0.0},
    "randaugment": {"layers": 0},
    "grayscale": {"grayscale": 0.0},
    "jigsaw": {"leave_out": ["jigsaw_values"]},
}

# InfoMin Aug step by step (Tian et al., 2020, C.1, Figure 4): `load("infomin", image_size, **INFOMIN_STEPS["blur"])` gives
# the augmentations up to the blur. The flip is there from the first step on.
INFOMIN_STEPS: dict[str, dict[str, Any]] = {
    step: {option: value for later in list(_WITHOUT)[place + 1 :] for option, value in _WITHOUT[later].items()}
    for place, step in enumerate(_WITHOUT)
}
