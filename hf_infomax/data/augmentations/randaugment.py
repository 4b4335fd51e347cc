"""Both, strongly: operations drawn at random from a list, at one magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from . import photometry
from .base import Augmentation, on_some, probability_of
from .randomness import Draws, alike
from .sample import Sample
from .warp import Warp


class Level(NamedTuple):
    """How a magnitude of m becomes the argument of an operation: clamp(start + sign * span * m / 10, least, most).

    A sign of 0 is drawn, -1 or 1; where `whole`, the fraction of span * m / 10 is cut off.
    """

    start: float = 0.0
    span: float = 0.0
    sign: int = 1
    whole: bool = False
    least: float = -math.inf
    most: float = math.inf


class Operations(NamedTuple):
    """What was drawn for a batch; each (B, layers).

    Attributes:
        index: place in `RandAugment.OPERATIONS`; its length where nothing is to be done.
        argument: degrees, a shear, pixels or a part of the side, bits, a threshold or a sum of 8 bits, a factor; 1 for an
            operation without one.
        bicubic: 1 for bicubic and 0 for bilinear interpolation.
    """

    index: Tensor
    argument: Tensor
    bicubic: Tensor


class RandAugment(Augmentation):
    """A few operations in a row, each drawn for itself from fifteen and done with `probability` (Cubuk et al., 2020).

    The operations, magnitudes and signs are those of timm's `rand_augment_transform("rand-m9-mstd0.5-inc1")`, and as there
    they work as Pillow does, on the grid of 8 bits where a table does. With columns, all follow the warps.

        Rotate, ShearX, ShearY, TranslateX, TranslateY                          one affine map, filled up with `fill`
        AutoContrast, Equalize, Invert, Posterize, Solarize, SolarizeAdd        one table of 256 values a channel
        Color, Contrast, Brightness                                             one blend, with greys or black
        Sharpness                                                               a blend with the smoothed image

    Args:
        layers: operations in a row, n; one may come twice. 0 leaves the images as they are.
        magnitude: m, of `limit` at most.
        magnitude_std: standard deviation of each operation's magnitude, before it is clamped to [0, limit]; infinity for
            uniform magnitudes on [0, m].
        probability: of each operation.
        increasing: Posterize, Solarize and the blends grow stronger with the magnitude ("inc1"). Otherwise, as in the first
            of the published codes, a larger magnitude keeps more bits, inverts less, and blends from 0.1 to 1.9.
        fill: colour outside of a warped image, in [0, 1]; the data's mean is usual.
        translate: the farthest translation, at magnitude 10, as a part of the image's side ("translate_pct").
        translate_pixels: the same in pixels ("translate_const"), in place of `translate`.
        limit: the largest magnitude ("mmax").
        fill_label: the label outside of a warped label map.

    Raises:
        UsageError: when built, for layers below 0, a magnitude out of [0, limit], a deviation below 0, a probability
            out of [0, 1], or a fill that is not three numbers in [0, 1].

    Example:
        >>> RandAugment(layers=2, magnitude=9, fill=(0.485, 0.456, 0.406))(torch.rand(8, 3, 32, 32)).shape
        torch.Size([8, 3, 32, 32])
    """

    WARPS = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
    TABLES = ("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd")
    BLENDS = ("Color", "Contrast", "Brightness")
    OPERATIONS = (*WARPS, *TABLES, *BLENDS, "Sharpness")
    # The argument with which an operation changes nothing, where it is not 0.
    NEUTRAL = {"Posterize": 8.0, "Solarize": 256.0, **dict.fromkeys((*BLENDS, "Sharpness"), 1.0)}

    def __init__(
        self,
        layers: int = 2,
        magnitude: float = 9.0,
        magnitude_std: float = 0.5,
        probability: float = 0.5,
        increasing: bool = True,
        fill: Sequence[float] = (128 / 255, 128 / 255, 128 / 255),
        translate: float = 0.45,
        translate_pixels: float | None = None,
        limit: float = 10.0,
        fill_label: int = 255,
    ) -> None:
        super().__init__()
        if layers < 0 or layers != int(layers):
            raise UsageError(f"RandAugment has {layers} layers: give a whole number from 0 on.")
        if not 0 <= magnitude <= limit:
            raise UsageError(f"the magnitude of RandAugment is {magnitude}: give a number from 0 to {limit:g}.")
        if not magnitude_std >= 0:
            raise UsageError(f"the deviation of RandAugment's magnitude is {magnitude_std}: give a number from 0 on.")
        if len(fill) != 3 or not all(0 <= value <= 1 for value in fill):
            raise UsageError(f"the fill of RandAugment is {tuple(fill)}: give three numbers between 0 and 1.")
        self.layers, self.magnitude, self.magnitude_std, self.limit = int(layers), magnitude, magnitude_std, limit
        self.probability = probability_of("an operation", probability)
        self.increasing, self.fill, self.fill_label = increasing, tuple(fill), fill_label
        self.in_pixels = translate_pixels is not None
        self.translate = translate_pixels if self.in_pixels else translate
        levels, count = self.levels(), len(self.OPERATIONS)
        table = torch.tensor([*(levels[name] for name in self.OPERATIONS), Level()])  # the last for nothing to be done
        self.register_buffer("level", table, persistent=False)  # (operations + 1, 6)
        self.register_buffer("drawn", torch.eye(count + 1, count), persistent=False)
        neutral = torch.tensor([self.NEUTRAL.get(name, 0.0) for name in self.OPERATIONS])
        self.register_buffer("neutral", neutral, persistent=False)

    def levels(self) -> dict[str, Level]:
        """What a magnitude means to each operation."""
        if self.increasing:
            blend = Level(1, 0.9, sign=0, least=0.1)
            bits = Level(4, 4, sign=-1, whole=True, least=0, most=8)
            threshold = Level(256, 256, sign=-1, whole=True, least=0)
        else:
            blend = Level(0.1, 1.8)
            bits = Level(0, 4, whole=True, least=0, most=8)
            threshold = Level(0, 256, whole=True, most=256)
        return {
            "Rotate": Level(span=30, sign=0),
            **dict.fromkeys(("ShearX", "ShearY"), Level(span=0.3, sign=0)),
            **dict.fromkeys(("TranslateX", "TranslateY"), Level(span=self.translate, sign=0)),
            **dict.fromkeys(("AutoContrast", "Equalize", "Invert"), Level(1)),
            "Posterize": bits,
            "Solarize": threshold,
            "SolarizeAdd": Level(span=110, whole=True, most=128),
            **dict.fromkeys((*self.BLENDS, "Sharpness"), blend),
        }

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        return self.transform(Sample(images), draws).images

    def transform(self, sample: Sample, draws: Draws) -> Sample:
        if self.layers == 0:
            return sample
        drawn, device = self.operations(draws), draws.keys.device
        # Every operation's argument for every image, which changes nothing where another was drawn: no masks from here on.
        chosen = self.drawn.to(device)[drawn.index]  # (B, layers, operations), 1 for the one that was drawn
        arguments = torch.lerp(self.neutral.to(device), drawn.argument.unsqueeze(2), chosen)
        families = self.WARPS, self.TABLES, self.BLENDS, ("Sharpness",)
        warps, tables, blends, sharpness = arguments.split([len(family) for family in families], 2)
        in_warps, in_tables, in_blends, sharper = (
            self._one_of(drawn.index, family) for family in families
        )  # (B, layers)
        images, columns, sizes = sample.unit_images(), sample.columns, sample.extents()
        matrices = self._matrices(warps, sizes)  # (B, layers, 2, 3)
        for layer in range(self.layers):
            matrix, bicubic, warped = matrices[:, layer], drawn.bicubic[:, layer], in_warps[:, layer]
            images = on_some(images, warped, self._warp, matrix, sizes, bicubic)
            images = on_some(images, in_tables[:, layer], self._look_up, tables[:, layer])
            images = on_some(images, in_blends[:, layer], self._blend, blends[:, layer])
            images = on_some(images, sharper[:, layer], photometry.adjust_sharpness, sharpness[:, layer, 0])
            warp = Warp.of(matrix, sizes, sample.canvas, bicubic, self.fill, self.fill_label)
            columns = {name: _moved(column, warp, sample.kinds[name], warped) for name, column in columns.items()}
        return replace(sample, images=images, columns=columns, white=1.0)

    def operations(self, draws: Draws) -> Operations:
        """What is done to each image, layer by layer."""
        chosen, applied, sign, bicubic, noise = draws.uniform(5, self.layers).unbind(1)  # (B, layers) each
        if math.isinf(self.magnitude_std):
            magnitude = noise * self.magnitude
        elif self.magnitude_std:
            magnitude = (self.magnitude + self.magnitude_std * draws.normal(self.layers)).clamp_(0, self.limit)
        else:
            magnitude = torch.full_like(noise, self.magnitude)
        count = len(self.OPERATIONS)
        index = torch.where(applied < self.probability, (chosen * count).long().clamp_(max=count - 1), count)
        start, span, direction, whole, least, most = self.level.to(index.device)[index].unbind(-1)
        step = span * magnitude / 10
        step = torch.lerp(step, step.floor(), whole)
        direction = torch.where(direction == 0, (sign < 0.5) * 2.0 - 1, direction)
        argument = torch.minimum(torch.maximum(start + direction * step, least), most)
        return Operations(index, argument, (bicubic < 0.5).to(torch.float32))

    def _one_of(self, index: Tensor, family: tuple[str, ...]) -> Tensor:
        """Whether each is one of a family's operations, which stand side by side."""
        first = self.OPERATIONS.index(family[0])
        return (index >= first) & (index < first + len(family))

    def _matrices(self, arguments: Tensor, sizes: Tensor) -> Tensor:
        """(B, layers, 5) -> (B, layers, 2, 3): the maps, about the centre where they turn."""
        rotate, shear_x, shear_y, move_x, move_y = arguments.unbind(2)
        height, width = sizes.to(torch.float32).unsqueeze(2).unbind(1)  # (B, 1)
        radians = rotate * (math.pi / 180)  # counter-clockwise, as seen
        cosine, sine = alike(torch.cos, radians), alike(torch.sin, radians)
        if not self.in_pixels:
            move_x, move_y = move_x * width, move_y * height
        # A centre (x, y) stays where it is: (1 - cos) x + sin y is added to the first coordinate, and so on.
        across, down, rest = width / 2, height / 2, 1 - cosine
        move_x = move_x + rest * across + sine * down
        move_y = move_y + rest * down - sine * across
        rows = [cosine, shear_x - sine, move_x, shear_y + sine, cosine, move_y]
        return torch.stack(rows, 2).unflatten(2, (2, 3))

    def _warp(self, images: Tensor, matrix: Tensor, sizes: Tensor, bicubic: Tensor) -> Tensor:
        warp = Warp.of(matrix, sizes, tuple(images.shape[-2:]), bicubic, self.fill)
        return warp.values(images).clamp_(0, 1).to(images.dtype)

    def _look_up(self, images: Tensor, arguments: Tensor) -> Tensor:
        """What gives equal values equal values: done to a ramp of 256, which then is the table."""
        contrast, equal, inverted, bits, threshold, add = arguments.unbind(1)
        ramp = (torch.arange(256, device=images.device) / 255).expand(len(images), 1, 1, 256)
        table = photometry.solarize(ramp, threshold * (1 - inverted) / 255)  # from 0 on, all are inverted
        table = photometry.posterize(table, bits)
        table = photometry.solarize_add(table, add / 255)
        contrast = photometry.per_image(contrast)
        low = images.amin((2, 3), keepdim=True) * contrast
        high = torch.lerp(torch.ones_like(contrast), images.amax((2, 3), keepdim=True), contrast)
        table = photometry.stretch(table, low, high)  # (B, 3, 1, 256)
        table = on_some(table, equal > 0, lambda _, some: photometry.equalizer(some), images)
        return photometry.look_up(images, table).to(images.dtype)

    def _blend(self, images: Tensor, factors: Tensor) -> Tensor:
        """With its greys, its mean grey or black."""
        color, contrast, brightness = factors.unbind(1)
        return photometry.adjust_one(images, brightness, contrast, color)

    def extra_repr(self) -> str:
        return (
            f"layers={self.layers}, magnitude={self.magnitude}, magnitude_std={self.magnitude_std}, "
            f"probability={self.probability}, increasing={self.increasing}"
        )


def _moved(column: Tensor, warp: Warp, kind: str, chosen: Tensor) -> Tensor:
    """A column as the warp maps it, for the chosen (B,); the others untouched."""
    moved = getattr(warp, kind)(column)
    return torch.where(chosen.view(-1, *[1] * (column.ndim - 1)), moved, column.to(moved.dtype))
