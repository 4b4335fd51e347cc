"""An image column of a dataset -> decoded images, one after the other, in a cache on disk that is read by mapping.

Decoding costs more than all that follows it on a small encoder, so it is paid once and not once an epoch or a run.
Threads were measured and left out: at 32x32 Python's lock makes two slower than one, and at 480x360 they gained little.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import datasets
import torch
from torch import Tensor
from tqdm.auto import tqdm

from hf_infomax.models.errors import UsageError

from .cache import Source, Writer, in_memory, on_disk
from .decoding import CorruptImage, Decoder, Kind, OnMissing
from .stores import VariableImages

logger = logging.getLogger(__name__)

OnCorrupt = Literal["stop", "skip"]

_READ_ROWS = 100  # encoded images read at a time


@dataclass(frozen=True)
class DecodedImages:
    """Decoded images, mapped from the cache or in memory.

    Attributes:
        pixels: (N, C, H, W) where all have one size, else `VariableImages`, which pads the batches asked of it.
        indices: (N,) int64, the dataset's row of each image: labels are `dataset[column]` at these rows.
        skipped: how many rows could not be decoded and are in neither.
        sizes: (N, 2) int64, height and width in `pixels`.
        original_sizes: (N, 2) int64, height and width before resizing, upright.
        cropped: whether each is the central square of its original, or all of it.
    """

    pixels: Tensor | VariableImages
    indices: Tensor
    skipped: int
    sizes: Tensor
    original_sizes: Tensor
    cropped: bool

    @property
    def present(self) -> Tensor:
        """(N,) bool: False where the dataset has no image, and `pixels` holds zeros (under on_missing="blank")."""
        return self.original_sizes[:, 0] > 0

    def boxes(self, boxes: Sequence[Sequence[Sequence[float]]]) -> Tensor:
        """Boxes in pixels of the original images -> boxes in pixels of the stored ones.

        They are scaled, shifted by the crop and clipped. Every box keeps its place among those of its image; one of
        which no area is left, and the places that an image with fewer boxes has to spare, are NaN.

        Args:
            boxes: for each image, in the order of `indices`, its boxes [x0, y0, x1, y1].

        Returns:
            (N, M, 4) float32, M the most boxes of an image.

        Raises:
            UsageError: boxes of another number of images.

        Example:
            >>> decoded = decode_images(faces, "image", image_size=64)  # of one image of 200x100, say
            >>> decoded.boxes([[[60, 10, 90, 40]]])
            tensor([[[ 6.4000,  6.4000, 25.6000, 25.6000]]])
        """
        if len(boxes) != len(self.indices):
            raise UsageError(
                f"there are boxes of {len(boxes)} images and {len(self.indices)} images: "
                "take the boxes' rows at DecodedImages.indices."
            )
        most = max((len(of_image) for of_image in boxes), default=0)
        found = torch.full((len(boxes), most, 4), torch.nan, dtype=torch.float64)
        for row, of_image in enumerate(boxes):
            if len(of_image):
                found[row, : len(of_image)] = torch.as_tensor(of_image, dtype=torch.float64)
        original, stored = (sizes.flip(1).double()[:, None, None] for sizes in (self.original_sizes, self.sizes))
        window = original.amin(dim=-1, keepdim=True).expand_as(original) if self.cropped else original  # (N, 1, 1, 2)
        corners = found.view(len(boxes), most, 2, 2)  # (x, y) of the two corners
        corners = (corners - (original - window) / 2) * (stored / window)
        corners = torch.minimum(corners.clamp(min=0), stored)
        empty = (corners[:, :, 1] <= corners[:, :, 0]).any(dim=-1)  # (N, M)
        return corners.flatten(2).masked_fill(empty[..., None], torch.nan).float()


def decode_images(
    dataset: datasets.Dataset,
    image_column: str,
    image_size: int | None = None,
    *,
    shorter_side: int | None = None,
    kind: Kind = "pixels",
    on_corrupt: OnCorrupt = "stop",
    on_missing: OnMissing = "corrupt",
    progress: bool = True,
    cache: bool = True,
) -> DecodedImages:
    """Decode a whole image column, once: the next call, in any process, opens what this one wrote.

    Every image is turned upright (EXIF) and resized where its size differs: to a square, cropped from its centre
    (`image_size`, the field's "resize the shorter side, then centre crop" in one step), or keeping its aspect
    (`shorter_side`). What becomes of its values is its kind's:

    - "pixels": RGB uint8, 3 channels (grey, palette and 16-bit images too; transparency is dropped); antialiased
      bilinear.
    - "labels": a map of class indices, 1 channel, grey values or palette indices as they are; nearest neighbour. uint8;
      int32 for all images where the file of one has more than 8 bits.
    - "values": a map of real or integer values such as depth, 1 channel, float32; nearest neighbour, since a mean of a
      distance and of the 0 that stands for none would be a distance that was never measured.

    The cache (`$HF_INFOMAX_CACHE`, else `<HF_HOME>/hf_infomax/images`) is keyed by the dataset's fingerprint, the column
    and these settings. A dataset of paths keeps its fingerprint when the files behind them are overwritten: remove the
    cache then. Memory is bounded whatever the dataset's size.

    Args:
        dataset: what `load_dataset` gives without streaming.
        image_column: name of an `Image` column (`find_image_column`).
        image_size: side in pixels of every image.
        shorter_side: pixels of the shorter side at most; smaller images stay as they are. Give one of the two.
        kind: "pixels", "labels" or "values".
        on_corrupt: "stop" raises for an image that cannot be decoded; "skip" leaves it out, counts it and warns once.
        on_missing: what a row without an image (None) is: "corrupt", or "blank": zeros, with `DecodedImages.present`
            False, of 0x0 pixels under `shorter_side`. For views that only some samples have.
        progress: show a progress bar while decoding.
        cache: False decodes into memory, for a small set that is used once.

    Raises:
        UsageError: a corrupt image under "stop", no image left under "skip" or "blank", a map of several channels, a
            full disk or a cache folder that cannot be written, or a setting out of range.

    Example:
        >>> decoded = decode_images(load_dataset("hf_infomax/colour_digits", "test[:10]"), "image", image_size=32)
        >>> decoded.pixels.shape
        torch.Size([10, 3, 32, 32])
    """
    decoder = Decoder(image_column, image_size, shorter_side, kind, on_missing)
    check_policy(on_corrupt)
    fill = partial(_decode_into, dataset=dataset, decoder=decoder, on_corrupt=on_corrupt, progress=progress)
    dtype, channels = decoder.dtypes[0], decoder.channels
    size = len(dataset) * channels * image_size**2 * dtype.itemsize if image_size else 0
    source = Source(fill, channels, dtype, len(dataset), size)
    store = on_disk(decoder.key(dataset), source) if cache else in_memory(source)
    # The policy is asked again of a store that a call with the other one has built.
    skipped = len(dataset) - len(store.table)
    if skipped and on_corrupt == "stop":
        raise corrupt_image_error(*store.notes["first_corrupt"])
    if skipped:
        warn_of_skipped(skipped, len(dataset))
    cropped = image_size is not None
    return DecodedImages(store.images(), store.rows, skipped, store.sizes, store.original_sizes, cropped)


def check_policy(on_corrupt: str) -> None:
    """A `UsageError` for a policy about corrupt images that is none."""
    if on_corrupt not in ("stop", "skip"):
        raise UsageError(f"data.on_corrupt is '{on_corrupt}': choose stop or skip.")


def corrupt_image_error(place: str, reason: object) -> UsageError:
    """What a corrupt image ends in under "stop"."""
    return UsageError(f"the image in {place} cannot be decoded ({reason}): mend it, or set data.on_corrupt=skip.")


def warn_of_skipped(skipped: int, total: int) -> None:
    """One line about the images that "skip" left out."""
    logger.warning("%d of %d images could not be decoded and were skipped (data.on_corrupt=skip)", skipped, total)


def _decode_into(
    writer: Writer, dataset: datasets.Dataset, decoder: Decoder, on_corrupt: OnCorrupt, progress: bool
) -> dict[str, Any]:
    """Write every image of the column -> notes: the first corrupt one, its place and what is wrong with it."""
    column = decoder.column
    # Encoded bytes only: `datasets` would decode a batch at a time, and one bad image would hide the others.
    encoded = dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False)).with_format("arrow")
    notes: dict[str, Any] = {}
    row = written = 0
    with tqdm(total=len(dataset), desc=f"decoding {column}", unit="img", leave=False, disable=not progress) as bar:
        for table in encoded.iter(batch_size=_READ_ROWS):
            for value in table.column(column):
                try:
                    image, original = decoder(value.as_py())
                    if image.dtype.itemsize > writer.dtype.itemsize:  # the others have to follow
                        writer.restart(decoder.dtypes[-1])
                        return _decode_into(writer, dataset, decoder, on_corrupt, progress)
                    writer.append(image, row, original)
                    written += original != (0, 0)  # a missing one is no image
                except CorruptImage as error:
                    if on_corrupt == "stop":
                        raise corrupt_image_error(f"row {row}", error) from error
                    notes.setdefault("first_corrupt", [f"row {row}", str(error)])
                row += 1
            bar.update(len(table))
    if not written:
        raise UsageError(
            f"none of the {len(dataset)} images of '{column}' can be decoded, or all are missing: check the dataset."
        )
    return notes
