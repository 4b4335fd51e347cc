"""Recipes of views, by name: what a method is shown of an image.

A recipe is data: the augmentations in their order, each with its strengths. A strength is set by its name, which is
unique within a recipe: `load("crop_flip", image_size=32, padding=2)`, or `views.padding=2` on the command line. A new
recipe is a new entry of `RECIPES`; a new kind of augmentation is a class in `augmentations`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hf_infomax.models.errors import UsageError

from .augmentations import CropFlip

RECIPES: dict[str, dict[type[nn.Module], dict[str, float]]] = {
    # Deep InfoMax's own (Hjelm et al., 2019): the image as it is.
    "dim": {},
    # The usual light augmentation of small images.
    "crop_flip": {CropFlip: {"padding": 4, "flip": 0.5}},
}


class Views(nn.Module):
    """Images -> the named views that a method takes; built by `load`.

    Runs where its input is, under `torch.compile` too. Random numbers come from torch's generator of that device
    (`torch.manual_seed`), or from `generator`, which must be one of the same device.
    """

    def __init__(self, image_size: int, augmentations: list[nn.Module]) -> None:
        super().__init__()
        self.image_size = image_size
        self.augmentations = nn.ModuleList(augmentations)

    def forward(self, pixel_values: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Views of a batch.

        Args:
            pixel_values: (B, 3, H, W), uint8, or floating point that is in [0, 1] already.

        Returns:
            {"pixel_values": (B, 3, image_size, image_size) float32 in [0, 1]}

        Raises:
            UsageError: images of another type, or of a size that this recipe does not bring to `image_size`.
        """
        images = _to_unit_range(pixel_values)
        for augmentation in self.augmentations:
            images = augmentation(images, generator=generator)
        if images.shape[-2:] != (self.image_size, self.image_size):
            height, width = images.shape[-2:]
            raise UsageError(
                f"the views are {height}x{width} pixels and {self.image_size}x{self.image_size} were asked for: "
                "decode the images at that size."
            )
        return {"pixel_values": images}


def load(name: str, image_size: int, **strengths: float) -> Views:
    """The recipe `name` for views of `image_size` pixels, with some of its strengths changed.

    Raises:
        UsageError: no such recipe, or no such strength in it (the message lists what there is), or one out of range.

    Example:
        >>> views = load("crop_flip", image_size=32, padding=2)
        >>> views(torch.zeros(8, 3, 32, 32, dtype=torch.uint8))["pixel_values"].shape
        torch.Size([8, 3, 32, 32])
    """
    if name not in RECIPES:
        raise UsageError(f"there is no view recipe '{name}': choose one of {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    known = [strength for defaults in recipe.values() for strength in defaults]
    for strength in strengths:
        if strength not in known:
            remedy = f"choose one of {', '.join(known)}" if known else "it has none"
            raise UsageError(f"the view recipe '{name}' has no strength '{strength}': {remedy}.")
    augmentations = [
        augmentation(image_size=image_size, **{key: strengths.get(key, default) for key, default in defaults.items()})
        for augmentation, defaults in recipe.items()
    ]
    return Views(image_size, augmentations)


def _to_unit_range(pixel_values: Tensor) -> Tensor:
    if pixel_values.dtype == torch.uint8:
        return pixel_values.to(torch.float32) / 255
    if pixel_values.is_floating_point():
        return pixel_values.to(torch.float32)
    raise UsageError(f"the images are {pixel_values.dtype}: give uint8, or floating point in [0, 1].")
