"""The image column of a dataset -> one uint8 tensor, decoded once.

At 32x32 decoding costs more than everything that follows it on a small encoder, so it is paid once and not once an
epoch. Threads were measured and left out: at this size Python's lock makes two slower than one, and at 480x360 they
gained little.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from hf_infomax.models.errors import UsageError

logger = logging.getLogger(__name__)

OnCorrupt = Literal["stop", "skip"]

_READ_ROWS = 500  # encoded images held as Python objects at a time
_DECODER = datasets.Image()


@dataclass(frozen=True)
class DecodedImages:
    """Images in memory.

    Attributes:
        pixels: (N, 3, H, W) uint8, contiguous.
        indices: (N,) int64, the dataset's row of each image: labels are `dataset[column]` at these rows.
        skipped: how many rows could not be decoded and are in neither.
    """

    pixels: Tensor
    indices: Tensor
    skipped: int


class CorruptImage(Exception):
    """An image that cannot be decoded; never leaves this package."""


def decode_images(
    dataset: datasets.Dataset,
    image_column: str,
    image_size: int,
    on_corrupt: OnCorrupt = "stop",
    progress: bool = True,
) -> DecodedImages:
    """Decode a whole image column to RGB of one size.

    Every image is turned upright (EXIF), converted to RGB (grey, palette and 16-bit images too; transparency is
    dropped) and, where its size differs, cropped in the centre to a square and resized with antialiasing (bilinear),
    which is the field's "resize the shorter side, then centre crop" in one step.

    Args:
        dataset: what `load_dataset` gives without streaming.
        image_column: name of an `Image` column (`find_image_column`).
        image_size: side in pixels.
        on_corrupt: "stop" raises for an image that cannot be decoded; "skip" leaves it out, counts it and warns once.
        progress: show a progress bar.

    Raises:
        UsageError: a corrupt image under "stop", no image left under "skip", or a setting out of range.

    Example:
        >>> decoded = decode_images(load_dataset("hf_infomax/colour_digits", "test[:10]"), "image", image_size=32)
        >>> decoded.pixels.shape
        torch.Size([10, 3, 32, 32])
    """
    check_settings(image_size, on_corrupt)
    # Encoded bytes only: `datasets` would decode a batch at a time, and one bad image would hide the others.
    encoded = dataset.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    pixels = torch.empty((len(dataset), 3, image_size, image_size), dtype=torch.uint8)
    array = pixels.numpy()  # the same memory
    rows: list[int] = []
    row = -1
    with tqdm(total=len(dataset), desc="decoding", unit="img", leave=False, disable=not progress) as bar:
        for table in encoded.with_format("arrow").iter(batch_size=_READ_ROWS):
            for value in table.column(image_column).to_pylist():
                row += 1
                try:
                    array[len(rows)] = decode(value, image_size)
                    rows.append(row)
                except CorruptImage as error:
                    if on_corrupt == "stop":
                        raise corrupt_image_error(f"row {row}", error) from error
            bar.update(len(table))
    skipped = len(dataset) - len(rows)
    if skipped:
        warn_of_skipped(skipped, len(dataset))
    if not rows:
        raise UsageError(f"none of the {len(dataset)} images of '{image_column}' can be decoded: check the dataset.")
    return DecodedImages(pixels[: len(rows)], torch.tensor(rows), skipped)


def decode(value: dict[str, object] | None, image_size: int) -> np.ndarray:
    """(3, image_size, image_size) uint8 from `datasets`' encoded form of an image, {"bytes", "path"}.

    Raises:
        CorruptImage: it is missing, or is not an image, or only part of one.
    """
    if value is None:
        raise CorruptImage("the image is missing")
    try:
        image = _to_rgb(_DECODER.decode_example(value))
    except (
        Exception
    ) as error:  # Pillow's readers raise whatever they stumbled on: OSError, SyntaxError, struct.error, ...
        raise CorruptImage(f"{type(error).__name__}: {error}") from error
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def check_settings(image_size: int, on_corrupt: str) -> None:
    """A `UsageError` for an image size or a policy that is none."""
    if image_size < 1:
        raise UsageError(f"the image size is {image_size}: give a number of pixels from 1 on.")
    if on_corrupt not in ("stop", "skip"):
        raise UsageError(f"data.on_corrupt is '{on_corrupt}': choose stop or skip.")


def corrupt_image_error(place: str, error: CorruptImage) -> UsageError:
    """What a corrupt image ends in under "stop"."""
    return UsageError(f"the image in {place} cannot be decoded ({error}): mend it, or set data.on_corrupt=skip.")


def warn_of_skipped(skipped: int, total: int) -> None:
    """One line about the images that "skip" left out."""
    logger.warning("%d of %d images could not be decoded and were skipped (data.on_corrupt=skip)", skipped, total)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255, which leaves a white image
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:  # straight to RGB makes Pillow warn
        image = image.convert("RGBA")
    return image.convert("RGB")
