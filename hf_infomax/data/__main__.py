"""Draw a sheet of images and their views, to look at before a long run.

    python -m hf_infomax.data RECIPE DATASET [key=value ...]
    python -m hf_infomax.data infomin hf_infomax/colour_digits image_size=32 crop=0.4 output=views.png

Keys: split (train), config, image_column, image_size (32), shorter_side (none: images are cut to squares), images (8),
epoch (0), seed (0), output (views.png), crops, local_crops, leave_out, and the recipe's strengths.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import datasets
import yaml

from hf_infomax.models.errors import UsageError

from . import recipes
from .batches import DecodedDataset
from .images import decode_images
from .loading import find_image_column, load_dataset
from .sheet import view_sheet

SETTINGS: dict[str, Any] = {
    "split": "train",
    "config": None,
    "image_column": None,
    "image_size": 32,
    "shorter_side": None,
    "images": 8,
    "epoch": 0,
    "output": "views.png",
}


def draw(recipe: str, dataset: str, settings: dict[str, Any]) -> str:
    """Write the sheet and return where it is."""
    given = {key: settings.pop(key, default) for key, default in SETTINGS.items()}
    views = recipes.load(recipe, given["image_size"], **settings)
    split = load_dataset(dataset, given["split"], config=given["config"])
    split = split.select(range(min(given["images"], len(split))))
    column = find_image_column(split, given["image_column"])
    side = {"shorter_side": given["shorter_side"]} if given["shorter_side"] else {"image_size": given["image_size"]}
    decoded = decode_images(split, column, **side, cache=False, progress=False)
    batch = DecodedDataset(decoded.pixels).__getitems__(range(len(decoded.pixels)))
    sheet = view_sheet(batch["pixel_values"], views(**batch, epoch=given["epoch"]), batch.get("image_sizes"))
    sheet.save(given["output"])
    return given["output"]


def main(arguments: Sequence[str]) -> int:
    """The command; 0 when the sheet is written, 2 when the user has something to mend."""
    if len(arguments) < 2 or "--help" in arguments or "-h" in arguments:
        print(f"{__doc__.strip()}\n\nRecipes: {', '.join(recipes.RECIPES)}")
        return 0 if "--help" in arguments or "-h" in arguments else 2
    datasets.disable_progress_bars()
    try:
        print(draw(arguments[0], arguments[1], dict(map(_setting, arguments[2:]))))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _setting(argument: str) -> tuple[str, Any]:
    key, equals, value = argument.partition("=")
    if not equals:
        raise UsageError(f"'{argument}' is no setting: write key=value, such as image_size=64.")
    return key, yaml.safe_load(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
