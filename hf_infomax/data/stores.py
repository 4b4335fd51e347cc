"""Decoded images (and fields of flow) as they are read: flat values, in memory or mapped, and a table of whose they are.

    <store>/pixels.bin    the values of every image in turn, (C, h, w), nothing between them
    <store>/images.bin    int32 (N, 5): dataset row, stored height and width, original height and width (0 where there
                          was no image, and zeros are stored)
    <store>/meta.json     type, channels, notes, and the sizes of the two files in bytes

A mapped store travels to a worker process by its path, and each page that is read is the file's, shared by all.
"""

from __future__ import annotations

import json
import math
import mmap
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from hf_infomax.models.errors import UsageError

PIXELS, TABLE, META = "pixels.bin", "images.bin", "meta.json"

# Without it Linux refuses a private mapping larger than memory and swap together, though no page of it is ever written.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class MappedTensor(Tensor):
    """Images of one size, (N, C, H, W), over the file of a store; what is computed from it is a plain tensor.

    Pickled (as for the workers of a `DataLoader`) it is the store's path and not its values, so what is written into it
    stays in this process: take it as read-only. The file is never altered.
    """

    path: Path
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
        return open_images, (self.path,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor | VariableImages:
        return open_images(self.path)


class VariableImages:
    """Images of different sizes, one after the other in a flat array; a batch of them is padded.

    Args:
        values: (sum of C h w,), in memory or mapped.
        sizes: (N, 2) int64, height and width of each image.
        channels: C.
        path: of the store that `values` is mapped from; pickled, the images are this path and nothing else.

    Example:
        >>> images = VariableImages(np.arange(10, dtype=np.uint8), torch.tensor([[2, 3], [4, 1]]), channels=1)
        >>> padded, sizes = images[torch.tensor([1, 0])]
        >>> padded.shape, sizes.tolist()
        (torch.Size([2, 1, 4, 3]), [[4, 1], [2, 3]])
    """

    def __init__(self, values: np.ndarray, sizes: Tensor, channels: int, path: Path | None = None) -> None:
        self.sizes, self.channels, self.path = sizes, channels, path
        self._values = torch.from_numpy(values)
        self._ends = (sizes.prod(dim=1) * channels).cumsum(0)  # (N,)

    @property
    def dtype(self) -> torch.dtype:
        return self._values.dtype

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """The images at `index` -> (B, C, Hmax, Wmax), zeros at the right and the bottom, and sizes (B, 2) int64."""
        index = torch.as_tensor(index, dtype=torch.int64).reshape(-1)  # (B,)
        return self.batch(index), self.sizes[index]

    def batch(self, index: Tensor, least: tuple[int, int] = (0, 0)) -> Tensor:
        """The images at `index` (B,) -> (B, C, Hmax, Wmax), at least of the height and width `least`."""
        images = [
            self._values[end - self.channels * height * width : end].view(self.channels, height, width)
            for end, (height, width) in zip(self._ends[index].tolist(), self.sizes[index].tolist(), strict=True)
        ]
        return pad(images, least)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:
            return open_images, (self.path,)
        return VariableImages, (self._values.numpy(), self.sizes, self.channels)


@dataclass(frozen=True)
class ImageStore:
    """N decoded images of C channels.

    Attributes:
        values: flat, of any type that torch has.
        table: (N, 5) int32: dataset row, stored height and width, original height and width (0: there was no image).
        channels: C.
        notes: plain data kept with the images.
        path: the store's folder, or None in memory.
    """

    values: np.ndarray
    table: np.ndarray
    channels: int
    notes: dict[str, Any]
    path: Path | None = None

    @property
    def rows(self) -> Tensor:
        """(N,) int64, the dataset's row of each image."""
        return torch.from_numpy(self.table[:, 0].astype(np.int64))

    @property
    def sizes(self) -> Tensor:
        """(N, 2) int64, height and width as stored."""
        return torch.from_numpy(self.table[:, 1:3].astype(np.int64))

    @property
    def original_sizes(self) -> Tensor:
        """(N, 2) int64, height and width before they were resized."""
        return torch.from_numpy(self.table[:, 3:5].astype(np.int64))

    def images(self) -> Tensor | VariableImages:
        """(N, C, H, W) where all images have one size, else `VariableImages`."""
        if (self.table[:, 1:3] != self.table[:1, 1:3]).any():
            return VariableImages(self.values, self.sizes, self.channels, self.path)
        images = torch.from_numpy(self.values).view(len(self.table), self.channels, *self.table[0, 1:3].tolist())
        if self.path is None:
            return images
        mapped = images.as_subclass(MappedTensor)
        mapped.path = self.path
        return mapped


class Column(Protocol):
    """Rows that are put together as they are asked for."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor, least: tuple[int, int]) -> Tensor:
        """Those at `index` (B,), (B, C, H, W) of at least the height and width `least`."""
        ...


def take(rows: Tensor | Column, index: Tensor, least: tuple[int, int] = (0, 0)) -> Tensor:
    """Some rows of a column, as a batch; a tensor's have the size that they have."""
    if not isinstance(rows, Tensor):
        return rows.batch(index, least)
    if get_worker_info() is None:
        return rows[index]
    return torch.index_select(rows, 0, index, out=empty_batch((len(index), *rows.shape[1:]), rows.dtype))


def empty_batch(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Room for a batch; in a worker process it lies in the memory shared with the main one, so that no copy is sent."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    shared = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(shared).view(shape)


def pad(images: Iterable[Tensor], least: tuple[int, int] = (0, 0)) -> Tensor:
    """Images (C, h, w) of one type -> (B, C, Hmax, Wmax), with zeros at the right and the bottom.

    `least` is a height and a width that the result has at least.
    """
    images = list(images)
    height, width = (max(least[side], *(image.shape[side + 1] for image in images)) for side in (0, 1))
    batch = empty_batch((len(images), len(images[0]), height, width), images[0].dtype).zero_()
    for place, image in enumerate(images):
        batch[place, :, : image.shape[1], : image.shape[2]] = image
    return batch


def open_store(path: Path) -> ImageStore | None:
    """The store in a folder, or None where there is none, or one that is cut short.

    Raises:
        UsageError: the system refuses to map it.
    """
    try:
        meta = json.loads((path / META).read_text())
        if any((path / name).stat().st_size != size for name, size in meta["bytes"].items()):
            return None
        table = np.fromfile(path / TABLE, dtype=np.int32).reshape(-1, 5)
        dtype, channels, notes = np.dtype(meta["dtype"]), meta["channels"], meta["notes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        return ImageStore(_map(path / PIXELS, dtype), table, channels, notes, path)
    except OSError as error:
        raise UsageError(
            f"the image cache '{path}' cannot be mapped into memory ({error.strerror or error}): "
            "raise the system's limit on address space, or set data.streaming=true."
        ) from error


def open_images(path: Path) -> Tensor | VariableImages:
    """The images of a store that was open in another process.

    Raises:
        UsageError: it is there no longer.
    """
    store = open_store(path)
    if store is None:
        raise UsageError(f"the image cache '{path}' is gone or damaged: start again, which builds it anew.")
    return store.images()


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    """The values of a file, mapped copy-on-write: a page that is read is the file's, one that is changed is our own."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return np.memmap(path, dtype=dtype, mode="c")
    with open(path, "rb") as file:
        flags, protection = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return np.frombuffer(mmap.mmap(file.fileno(), 0, flags=flags, prot=protection), dtype=dtype)
