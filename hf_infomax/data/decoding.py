"""One encoded image -> an array: its kind says what its values are, its size is a square's or keeps the aspect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import datasets
import numpy as np
from PIL import Image

from hf_infomax.models.errors import UsageError, choose

from .cache import key_of

Kind = Literal["pixels", "labels", "values"]
OnMissing = Literal["corrupt", "blank"]

_DECODER = datasets.Image()


class CorruptImage(Exception):
    """An image that cannot be decoded; never leaves this package."""


@dataclass(frozen=True)
class Decoder:
    """What is made of the images of a column: their size, the kind of their values, missing ones; see `decode_images`.

    Raises:
        UsageError: a setting out of range.
    """

    column: str
    image_size: int | None = None
    shorter_side: int | None = None
    kind: Kind = "pixels"
    on_missing: OnMissing = "corrupt"

    def __post_init__(self) -> None:
        choose("kind of image", self.kind, _KINDS)
        choose("policy about missing images", self.on_missing, dict.fromkeys(get_args(OnMissing)))
        if (self.image_size is None) == (self.shorter_side is None):
            raise UsageError("the images' size is not clear: give either image_size or shorter_side.")
        for name, pixels in (("image size", self.image_size), ("shorter side", self.shorter_side)):
            if pixels is not None and pixels < 1:
                raise UsageError(f"the {name} is {pixels}: give a number of pixels from 1 on.")

    @property
    def channels(self) -> int:
        return 3 if self.kind == "pixels" else 1

    @property
    def dtypes(self) -> tuple[np.dtype, ...]:
        """Types that the images can have, the narrowest first."""
        return _KINDS[self.kind].dtypes

    def key(self, dataset: datasets.Dataset) -> str:
        """The name in the cache of what this makes of a dataset."""
        return key_of(fingerprint=dataset._fingerprint, rows=len(dataset), **asdict(self))

    def __call__(self, value: dict[str, Any] | None) -> tuple[np.ndarray, tuple[int, int]]:
        """`datasets`' encoded form of an image, {"bytes", "path"} -> (C, h, w), and its original height and width.

        A missing one is zeros under "blank", of the original size (0, 0); of no pixels where images keep their aspect,
        for what size it would have is not known.

        Raises:
            CorruptImage: it is missing, under "corrupt", or is not an image, or only part of one.
            UsageError: it has several channels and the kind is a map's.
        """
        if value is None or (value["bytes"] is None and value["path"] is None):
            if self.on_missing == "corrupt":
                raise CorruptImage("the image is missing")
            side = self.image_size or 0
            return np.zeros((self.channels, side, side), self.dtypes[0]), (0, 0)
        kind = _KINDS[self.kind]
        try:
            image = _DECODER.decode_example(value)
            original = (image.height, image.width)
            image = self._resized(kind.read(image), kind.resample)
        except _SeveralChannels as error:
            raise UsageError(
                f"an image of the column '{self.column}' has the mode {error} and {self.kind} are maps of one channel: "
                "store them as such, or choose another column."
            ) from error
        except (
            Exception
        ) as error:  # Pillow's readers raise what they stumbled on: OSError, SyntaxError, struct.error, ...
            raise CorruptImage(f"{type(error).__name__}: {error}") from error
        array = np.asarray(image)
        return (array.transpose(2, 0, 1) if array.ndim == 3 else array[None]), original

    def _resized(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        width, height = image.size
        shorter = min(width, height)
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            left, top = (width - shorter) / 2, (height - shorter) / 2
            box = (left, top, left + shorter, top + shorter)
        else:
            scale = min(1.0, self.shorter_side / shorter)
            size = (round(width * scale), round(height * scale))
            box = (0, 0, width, height)
        return image if image.size == size else image.resize(size, resample, box=box)


class _SeveralChannels(Exception):
    """The mode of an image that is no map."""


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255, which leaves a white image
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:  # straight to RGB makes Pillow warn
        image = image.convert("RGBA")
    return image.convert("RGB")


def _class_map(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "L", "P"):
        return Image.fromarray(np.asarray(image).astype(np.uint8))
    if image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image).astype(np.int32))
    raise _SeveralChannels(image.mode)


def _real_map(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "F") or image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image).astype(np.float32))
    raise _SeveralChannels(image.mode)


@dataclass(frozen=True)
class _KindOfImage:
    read: Callable[[Image.Image], Image.Image]
    resample: Image.Resampling
    dtypes: tuple[np.dtype, ...]


_KINDS = {
    "pixels": _KindOfImage(_rgb, Image.Resampling.BILINEAR, (np.dtype(np.uint8),)),
    "labels": _KindOfImage(_class_map, Image.Resampling.NEAREST, (np.dtype(np.uint8), np.dtype(np.int32))),
    "values": _KindOfImage(_real_map, Image.Resampling.NEAREST, (np.dtype(np.float32),)),
}
