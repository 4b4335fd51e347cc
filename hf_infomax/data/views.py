"""Batches of images -> batches of views, as a recipe says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hf_infomax.models.errors import UsageError, choose

from .augmentations import KINDS, Augmentation, Draws, Sample

# On a CPU a batch goes through in pieces of so many values, which fit the caches from one augmentation to the next.
_PIECE = 512 * 3 * 32 * 32

# A column of images that go through the same augmentations as `pixel_values`, colours too, with the same random numbers.
PIXELS = "pixels"


class Branch(nn.Module):
    """What makes one named view: augmentations in their order, for V crops of every image.

    Args:
        steps: the augmentations.
        crops: V, or None for one crop without a dimension of its own.
        side: pixels of the result; the patches of a jigsaw have their own.
        of: the view, made before this one, that the augmentations begin with; None: the image.

    Raises:
        UsageError: when built, V crops of what steps make two views of already.
    """

    def __init__(self, steps: Sequence[Augmentation], crops: int | None, side: int, of: str | None = None) -> None:
        super().__init__()
        self.of = of
        self.steps = nn.ModuleList(steps)
        self.crops = crops
        self.side = side
        self.patches = math.prod(step.pieces for step in steps)  # of each crop; 1 where it stays whole
        self.sized = not any(step.own_size for step in steps)
        if crops is not None and self.sized and self.patches > 1:
            raise UsageError(
                f"the recipe makes {self.patches} views of every image already: leave out the number of crops, and local crops."
            )
        # The dimensions that the rows of a result are unfolded into, after the batch's own.
        self.parts = [*([] if crops is None else [crops]), *([self.patches] if self.patches > 1 else [])]

    def forward(self, sample: Sample, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """A sample of B images -> its view (B, [V,] [patches,] 3, h, w), and its columns (B, [V,] [patches,] ...)."""
        sample = sample.repeated(self.crops or 1)  # a copy, for the augmentations write into it
        if self.crops is not None:
            draws = draws.split(self.crops)
        for step in self.steps:
            sample = step.transform(sample, draws)
            if step.pieces > 1:
                draws = draws.split(step.pieces)
        images = sample.unit_images().clamp_(0, 1)  # sums of weights miss 1 by a rounding
        if self.sized and images.shape[-2:] != (self.side, self.side):
            height, width = images.shape[-2:]
            raise UsageError(
                f"the views are {height}x{width} pixels and {self.side}x{self.side} were asked for: "
                "decode the images at that size, or take a recipe that crops."
            )
        columns = {name: column.unflatten(0, (-1, *self.parts)) for name, column in sample.columns.items()}
        return images.unflatten(0, (-1, *self.parts)), columns


class Views(nn.Module):
    """Images -> the named views that a method takes; built by `recipes.load`.

    Runs where its input is, under `torch.compile` too. What is drawn for an image depends on the seed, the epoch and the
    image's `sample_index` alone: not on the batch, its order, the workers, the processes or a resumption.

    Example:
        >>> views = recipes.load("simclr", image_size=32, seed=0)
        >>> batch = {"pixel_values": torch.rand(8, 3, 32, 32), "sample_index": torch.arange(8)}
        >>> batch |= views(**batch, epoch=3)  # pixel_values (8, 2, 3, 32, 32)
    """

    def __init__(
        self,
        branches: Mapping[str, Branch],
        image_size: int,
        seed: int = 0,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.image_size = image_size
        self.seed = seed
        self.columns = dict(columns or {})
        for kind in self.columns.values():
            choose("kind of column", kind, dict.fromkeys((*KINDS, PIXELS)))
        for name in self.columns:
            if name in self.branches:
                raise taken(name)
        for name, branch in branches.items():
            if branch.of is not None and branches[branch.of].parts:
                raise UsageError(
                    f"the view '{name}' is made of one crop, and '{branch.of}' has several: leave out crops and local_crops."
                )

    def forward(
        self,
        pixel_values: Tensor,
        *,
        sample_index: Tensor | None = None,
        image_sizes: Tensor | None = None,
        epoch: int = 0,
        **columns: Tensor,
    ) -> dict[str, Tensor]:
        """Views of a batch.

        Args:
            pixel_values: (B, 3, H, W), uint8, or floating point that is in [0, 1] already.
            sample_index: (B,) int64, the images' places in their dataset; without it the views differ from call to call.
            image_sizes: (B, 2) int64, heights and widths of images that are smaller than their tensor (padded at the
                right and the bottom).
            epoch: every epoch draws anew.
            columns: whatever else the batch has; those that were named to `load` follow the pixels of `pixel_values`,
                the rest is left alone ("present" too: where a column is missing, what follows of it has no meaning).

        Returns:
            {"pixel_values": (B, 3, h, w) or (B, V, 3, h, w) float32 in [0, 1]}, the recipe's other views, and the columns
            that followed; those of kind "pixels" are as `pixel_values` is. Recipes of pairs give V = 2.

        Raises:
            UsageError: images of another type, a column that the batch does not have, or images of a size that this
                recipe does not bring to the size of its views.
        """
        self._check(columns, pixel_values)
        if sample_index is None:
            draws = Draws.anew(len(pixel_values), pixel_values.device)
        else:
            draws = Draws.of(self.seed, epoch, sample_index.to(pixel_values.device))
        kinds = {name: kind for name, kind in self.columns.items() if kind != PIXELS}
        moving = {name: _decoded(columns[name], kind) for name, kind in kinds.items()}
        samples = {"pixel_values": _sample(pixel_values, image_sizes, moving, kinds)}
        samples |= {name: _sample(columns[name], image_sizes) for name in self.columns if name not in kinds}
        # Under autocast a crop's products would be rounded to half precision, to fewer bits than a pixel has.
        with torch.autocast(pixel_values.device.type, enabled=False):
            pieces = [self._views(samples, draws, piece) for piece in self._pieces(samples)]
        if len(pieces) == 1:
            return pieces[0]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _check(self, columns: Mapping[str, Tensor], pixel_values: Tensor) -> None:
        for name, kind in self.columns.items():
            if name not in columns:
                raise UsageError(f"the batch has no column '{name}': name it in data.columns, or not to the views.")
            if kind != "boxes" and columns[name].shape[-2:] != pixel_values.shape[-2:]:
                sizes = ["x".join(map(str, values.shape[-2:])) for values in (columns[name], pixel_values)]
                raise UsageError(
                    f"the column '{name}' is {sizes[0]} and the images are {sizes[1]}: bring them to one size, pixel on pixel."
                )

    def _views(self, samples: Mapping[str, Sample], draws: Draws, piece: slice) -> dict[str, Tensor]:
        samples, draws = {name: sample.select(piece) for name, sample in samples.items()}, draws.select(piece)
        made = {}
        for place, (name, branch) in enumerate(self.branches.items()):
            # Of the first branch every column of images is a view, by the same fork: by the same random numbers.
            whole = samples["pixel_values"].alone() if branch.of is None else Sample(made[branch.of])
            of_branch = samples if name == "pixel_values" else {name: whole}
            for view, sample in of_branch.items():
                made[view], columns = branch(sample, draws.fork(place))
                made |= columns
        return made

    def _pieces(self, samples: Mapping[str, Sample]) -> list[slice]:
        images = samples["pixel_values"].images
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return [slice(None)]
        tensors = [tensor for sample in samples.values() for tensor in (sample.images, *sample.columns.values())]
        height, width = images.shape[-2:]
        grown = max(1, self.image_size**2 / (height * width)) * (self.branches["pixel_values"].crops or 1)
        values = sum(tensor[:1].numel() for tensor in tensors) * grown  # of one image with all that follows it
        length = max(1, int(_PIECE / max(values, 1)))
        return [slice(start, start + length) for start in range(0, len(images), length)]


def taken(name: str) -> UsageError:
    """What a second view of one name ends in."""
    return UsageError(f"there is a view or a column '{name}' already: give the other one a name of its own.")


def _sample(
    images: Tensor,
    sizes: Tensor | None,
    columns: Mapping[str, Tensor] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Sample:
    """Images of uint8, or of floating point in [0, 1], with what follows them."""
    white = 1.0
    if images.dtype == torch.uint8:
        white = 255.0
    elif images.is_floating_point():
        images = images.to(torch.float32)
    else:
        raise UsageError(f"the images are {images.dtype}: give uint8, or floating point in [0, 1].")
    return Sample(images, dict(columns or {}), dict(kinds or {}), sizes, white)


def _decoded(column: Tensor, kind: str) -> Tensor:
    """A column as its kind means it: normals that come as an image, uint8, hold [-1, 1] as [0, 255]; flow is float32."""
    if kind == "normals" and column.dtype == torch.uint8:
        return column.to(torch.float32) / 127.5 - 1
    return column.to(torch.float32) if kind == "flow" else column
