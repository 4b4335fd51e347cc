"""Recipes of views, by name: what a method is shown of an image.

A recipe is data (`recipe_table`): for every view of a batch its augmentations in their order, each with its arguments, and
the number of crops. What is worth sliding is a `Strength`, set by its name: `load("infomin", image_size=32, crop=0.4,
jitter=0.5)`, or `views.crop=0.4` on the command line. A new recipe is a new entry of `RECIPES`; `two_crops` and
`multi_crop` turn one recipe into another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from hf_infomax.models.errors import UsageError, unknown_name

from .augmentations import RandomResizedCrop
from .recipe_table import INFOMIN_STEPS, RECIPES, SIZES, Recipe, Sized, Strength, View
from .views import Branch, Views, taken

__all__ = [
    "INFOMIN_STEPS",
    "RECIPES",
    "SIZES",
    "Recipe",
    "Sized",
    "Strength",
    "View",
    "load",
    "multi_crop",
    "strengths_of",
    "two_crops",
]

RESERVED = ("sample_index", "image_sizes", "present", "epoch")  # of a batch, and of `Views`


def two_crops(recipe: str | Recipe) -> Recipe:
    """The recipe with two independently drawn crops of each image: pixel_values (B, 2, 3, H, W)."""
    return multi_crop(recipe, crops=2)


def multi_crop(
    recipe: str | Recipe,
    crops: int = 2,
    local_crops: int = 0,
    local_side: float = 0.4375,
    local_scale: tuple[float, float] = (0.05, 0.14),
) -> Recipe:
    """The recipe with V crops of each image, and V' small local ones under the name `local_values`.

    Args:
        recipe: a name or a recipe.
        crops: V, of pixel_values (B, V, 3, H, W).
        local_crops: V', of local_values (B, V', 3, h, h); they go through the same augmentations after their crop.
        local_side: h / H; 96 of 224 pixels is SwAV's.
        local_scale: bounds of the local crops' area (Caron et al., 2020).

    Raises:
        UsageError: a number of crops below 1, or local crops of a recipe that has no random resized crop.

    Example:
        >>> views = load(multi_crop("simclr", crops=2, local_crops=6), image_size=32)
    """
    recipe = _find(recipe)
    if crops < 1 or local_crops < 0:
        raise UsageError(f"there are {crops} crops and {local_crops} local ones: give at least 1 and 0.")
    whole = recipe["pixel_values"]
    made = {**recipe, "pixel_values": replace(whole, crops=crops)}
    if local_crops:
        first = whole.steps[:1]
        if not first or first[0][0] is not RandomResizedCrop:
            raise UsageError("local crops need a recipe that begins with a random resized crop, such as simclr.")
        crop = (RandomResizedCrop, {**first[0][1], "scale": local_scale})
        made["local_values"] = View((crop, *whole.steps[1:]), crops=local_crops, side=local_side)
    return made


def strengths_of(recipe: str | Recipe) -> dict[str, float]:
    """The names and defaults of what can be set.

    Example:
        >>> strengths_of("crop_flip")
        {'padding': 4, 'flip': 0.5}
    """
    steps = (step for view in _find(recipe).values() for step in view.steps)
    return {strength.name: strength.default for _, arguments in steps for strength in _strengths(arguments.values())}


def load(
    recipe: str | Recipe,
    image_size: int,
    *,
    crops: int | None = None,
    local_crops: int = 0,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    again: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    **strengths: float,
) -> Views:
    """The views of a recipe for images of `image_size` pixels, with some of its strengths changed.

    Args:
        recipe: a name among `RECIPES`, or a recipe.
        image_size: side of `pixel_values`; the other views follow in proportion.
        crops, local_crops: as in `multi_crop`; None leaves the recipe's own number, and crops = 0 gives one crop without
            a dimension of its own, (B, 3, H, W). A recipe of pairs, "patches" or "frequency", takes no number but 0.
        seed: of the random numbers; together with the epoch and the index of an image it fixes its views.
        columns: further columns of the batch that follow the pixels, by what they hold: {"depth": "values", "semantic":
            "labels", "normals": "normals", "flow": "flow", "boxes": "boxes"}; see `augmentations.geometry`. "pixels" are
            images that are augmented as `pixel_values`, with the same random numbers: {"next_frame": "pixels"}.
        again: names of further views, each made as `pixel_values` is, of the same images, with random numbers of its own;
            the columns follow `pixel_values` alone.
        leave_out: names of views of the recipe, other than `pixel_values`, that are not made: ["jigsaw_values"].
        strengths: by name; `strengths_of` lists them. Those that only a view left out has, go with it.

    Raises:
        UsageError: no such recipe, or no such strength or view to leave out in it (the message lists what there is), or a
            strength out of range, or a name in `again` that is taken or cannot be one, or a number of crops of pairs.

    Example:
        >>> views = load("crop_flip", image_size=32, padding=2)
        >>> views(torch.zeros(8, 3, 32, 32, dtype=torch.uint8))["pixel_values"].shape
        torch.Size([8, 3, 32, 32])
        >>> load("simclr", image_size=32, crop=0.2)(torch.rand(8, 3, 40, 36))["pixel_values"].shape
        torch.Size([8, 2, 3, 32, 32])
        >>> load("cmc", image_size=32, again=["second_crop"])(torch.rand(8, 3, 40, 36))["second_crop"].shape
        torch.Size([8, 3, 32, 32])
        >>> load("patches", image_size=32, distance=48)(torch.rand(8, 3, 96, 128))["pixel_values"].shape
        torch.Size([8, 2, 3, 32, 32])
        >>> list(load("infomin", image_size=32, leave_out=["jigsaw_values"]).branches)
        ['pixel_values']
    """
    name = recipe if isinstance(recipe, str) else "given"
    recipe = _find(recipe)
    if crops or local_crops:
        recipe = multi_crop(recipe, crops or recipe["pixel_values"].crops or 1, local_crops)
    if crops == 0:
        recipe = {**recipe, "pixel_values": replace(recipe["pixel_values"], crops=None)}
    recipe = _without(recipe, [leave_out] if isinstance(leave_out, str) else leave_out, name)
    known = strengths_of(recipe)
    for strength in strengths:
        if strength not in known:
            remedy = f"choose one of {', '.join(known)}" if known else "it has none"
            raise UsageError(f"the view recipe '{name}' has no strength '{strength}': {remedy}.")
    recipe = _repeated(recipe, [again] if isinstance(again, str) else again)
    return Views(
        {view: _branch(spec, image_size, strengths) for view, spec in recipe.items()}, image_size, seed, columns
    )


def _without(recipe: Recipe, leave_out: Sequence[str], name: str) -> Recipe:
    """The recipe without some of its views."""
    known = [view for view in recipe if view != "pixel_values"]
    for view in leave_out:
        if view not in known:
            remedy = f"choose one of {', '.join(known)}" if known else "it has no view besides pixel_values"
            raise UsageError(f"the view recipe '{name}' cannot leave out '{view}': {remedy}.")
    return {view: spec for view, spec in recipe.items() if view not in leave_out}


def _repeated(recipe: Recipe, again: Sequence[str]) -> Recipe:
    """The recipe with further views that are made as `pixel_values` is."""
    made = dict(recipe)
    for name in again:
        if not name.isidentifier() or hasattr(nn.ModuleDict, name):
            raise UsageError(f"'{name}' cannot be the name of a view: choose one such as second_crop.")
        if name in (*made, *RESERVED):
            raise taken(name)
        made[name] = recipe["pixel_values"]
    return made


def _find(recipe: str | Recipe) -> Recipe:
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise unknown_name("view recipe", recipe, tuple(RECIPES))
        return RECIPES[recipe]
    return recipe


def _branch(view: View, image_size: int, strengths: Mapping[str, float]) -> Branch:
    side = round(view.side * image_size)
    steps = [
        kind(**{key: _resolve(value, side, strengths) for key, value in given.items()}) for kind, given in view.steps
    ]
    return Branch(steps, view.crops, side, view.of)


def _resolve(value: Any, side: int, strengths: Mapping[str, float]) -> Any:
    if isinstance(value, Strength):
        return strengths.get(value.name, value.default)
    if isinstance(value, Sized):
        return SIZES[value.rule](side)
    if isinstance(value, tuple):
        return tuple(_resolve(part, side, strengths) for part in value)
    return value


def _strengths(values: Any) -> Iterator[Strength]:
    for value in values:
        if isinstance(value, Strength):
            yield value
        elif isinstance(value, tuple):
            yield from _strengths(value)
