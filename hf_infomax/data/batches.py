"""Decoded images, or a stream -> batches, as dicts of named tensors.

Pixels stay uint8 up to the training device, where the recipe turns them into views: a quarter of the memory and of the
transfer. A batch of decoded images is one index operation, not one item at a time. Images of different sizes are padded
with zeros, at the right and the bottom, to the largest of their batch, which then says how large each is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from hf_infomax.models.errors import UsageError

from .decoding import CorruptImage, Decoder, Kind
from .images import OnCorrupt, check_policy, corrupt_image_error, warn_of_skipped
from .stores import Column, VariableImages, pad, take

Batch = dict[str, Tensor | dict[str, Tensor]]

_OWN_NAMES = ("pixel_values", "sample_index", "image_sizes", "present")


class DecodedDataset(Dataset[Batch]):
    """Decoded images, read a batch at a time.

    A batch is {"pixel_values": (B, 3, H, W) uint8, "sample_index": (B,) int64} and the further columns, and where the
    images differ in size also "image_sizes": (B, 2) int64, height and width of each inside the padded tensor.
    `sample_index` is the image's place in `pixels`, 0 to N - 1: what a memory bank of N rows is addressed with (not the
    dataset's row, which differs where corrupt images were skipped: see `DecodedImages.indices`).

    Where rows of a column are missing, these are zeros, and the batch has "present": {name: (B,) bool} for such columns
    and no others.

    Args:
        pixels: N images, as `decode_images` gives them. Those of the cache travel to worker processes by its path.
        columns: further tensors of N rows, images of different sizes or frames of clips, by name; for example
            {"labels": ..., "next_frame": clips.frames(pixels, 1)}.
        present: of columns, (N,) bool, whether a row is there: `DecodedImages.present` or `Window.present`. Missing images
            of different sizes are padded to the size of the batch's images.

    Raises:
        UsageError: a column of another length, or with a name that is taken, or `present` of another length or of none.

    Example:
        >>> dataset = DecodedDataset(torch.zeros(100, 3, 32, 32, dtype=torch.uint8))
        >>> dataset.__getitems__([3, 1])["sample_index"]
        tensor([3, 1])
        >>> there = torch.arange(100) % 2 == 0
        >>> DecodedDataset(dataset.pixels, {"x": torch.ones(100)}, {"x": there}).__getitems__([3, 2])["present"]
        {'x': tensor([False,  True])}
    """

    def __init__(
        self,
        pixels: Tensor | VariableImages,
        columns: Mapping[str, Tensor | Column] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.pixels = pixels
        self.columns = dict(columns or {})
        _check_names(self.columns)
        for name, column in [*self.columns.items(), *(present or {}).items()]:
            if name not in self.columns:
                raise UsageError(
                    f"it is said where '{name}' is present, and there is no such column: give it in columns."
                )
            if len(column) != len(pixels):
                raise UsageError(
                    f"the column '{name}' has {len(column)} rows and there are {len(pixels)} images: "
                    "take its rows at DecodedImages.indices."
                )
        self.present = {name: there for name, there in (present or {}).items() if not there.all()}

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Batch:
        return _first(self.__getitems__([index]))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch at `indices`; `DataLoader` calls this once a batch where it exists."""
        index = torch.as_tensor(indices, dtype=torch.int64)  # (B,)
        batch: Batch = {"sample_index": index, "pixel_values": take(self.pixels, index)}
        if isinstance(self.pixels, VariableImages):
            batch["image_sizes"] = self.pixels.sizes[index]
        for name, column in self.columns.items():
            # A missing image does not say how large it would be; a size that does not fit the images is left to be found.
            least = batch["pixel_values"].shape[-2:] if name in self.present else (0, 0)
            batch[name] = take(column, index, least)
        if self.present:
            batch["present"] = {name: there[index] for name, there in self.present.items()}  # (B,) each
            for name, there in batch["present"].items():
                batch[name][~there] = 0
        return batch


class StreamingImages(IterableDataset[Batch]):
    """Images decoded as a stream brings them, by the same rules as `decode_images`.

    Yields {"pixel_values": (3, H, W) uint8} and the further columns, and with `shorter_side` also "image_sizes": (2,)
    int64, which `data_loader` pads by; there is no `sample_index`, since a stream has none. What the rest of a stream holds
    is not known: labels are always int32, and further columns always come with "present": {name: () bool}, zeros standing
    where a row has none. The stream comes shuffled (`stream.shuffle(buffer_size=...)`) and divided
    among processes (`datasets.distributed.split_dataset_by_node`) by the caller. `datasets` itself divides its shards
    among the workers of a `DataLoader`; those beyond the number of shards idle.

    Args:
        stream: what `load_dataset(..., streaming=True)` gives.
        image_column, image_size, on_corrupt, shorter_side: as in `decode_images`. Under "skip" the count is warned of
            after each pass; a sample is left out as a whole.
        columns: further columns of images, name -> kind, as in `decode_images`; a row may have None.

    Raises:
        UsageError: a setting out of range; when iterated, a corrupt image under "stop".

    Example:
        >>> stream = load_dataset("hf_infomax/colour_digits", "train", streaming=True).shuffle(seed=0, buffer_size=1000)
        >>> next(iter(StreamingImages(stream, "image", image_size=32)))["pixel_values"].shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        stream: datasets.IterableDataset,
        image_column: str,
        image_size: int | None = None,
        on_corrupt: OnCorrupt = "stop",
        *,
        shorter_side: int | None = None,
        columns: Mapping[str, Kind] | None = None,
    ) -> None:
        check_policy(on_corrupt)
        _check_names(columns or {})
        kinds = {image_column: "pixels", **(columns or {})}
        self.main = Decoder(image_column, image_size, shorter_side)
        self.further = {
            name: Decoder(name, image_size, shorter_side, kind, on_missing="blank")
            for name, kind in (columns or {}).items()
        }
        self.stream = stream.select_columns(list(kinds))
        for name in kinds:
            self.stream = self.stream.cast_column(name, datasets.Image(decode=False))
        self.on_corrupt = on_corrupt

    def set_epoch(self, epoch: int) -> None:
        """Another order for another epoch; Accelerate's loaders call it."""
        self.stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        skipped, row = 0, -1
        # Inside a worker `datasets` reads that worker's shards only: nothing is to be divided here.
        for row, example in enumerate(self.stream):
            try:
                yield self._sample(example)
            except CorruptImage as error:
                if self.on_corrupt == "stop":
                    raise corrupt_image_error(f"place {row} of the stream, as read,", error) from error
                skipped += 1
        if skipped:
            warn_of_skipped(skipped, row + 1)

    def _sample(self, example: dict[str, object]) -> Batch:
        pixels, _ = self.main(example[self.main.column])  # (3, h, w)
        sample: Batch = {"pixel_values": torch.from_numpy(pixels.copy())}
        present = {}
        for name, decoder in self.further.items():
            image, original = decoder(example[name])  # (C, h, w)
            present[name] = torch.tensor(original != (0, 0))
            if original == (0, 0):
                image = np.zeros((decoder.channels, *pixels.shape[1:]))
            sample[name] = torch.from_numpy(image.astype(decoder.dtypes[-1]))
        if self.main.shorter_side:
            sample["image_sizes"] = torch.tensor(pixels.shape[1:])
        return sample | ({"present": present} if present else {})


def _check_names(columns: Iterable[str]) -> None:
    for name in columns:
        if name in _OWN_NAMES:
            raise UsageError(f"the column '{name}' would replace the batch's own: give it another name.")


def _first(batch: Batch) -> Batch:
    """The first sample of a batch."""
    return {name: _first(column) if isinstance(column, dict) else column[0] for name, column in batch.items()}


def collate(batch: Batch) -> Batch:
    """The batch itself: `DecodedDataset` has put it together already."""
    return batch


def collate_padded(samples: Sequence[Batch]) -> Batch:
    """Samples of a stream -> a batch, whose images (C, h, w) are padded to the largest."""
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    present = {"present": collate_padded(columns.pop("present"))} if "present" in columns else {}
    tensors = {name: pad(values) if values[0].dim() == 3 else torch.stack(values) for name, values in columns.items()}
    return tensors | present


def data_loader(
    images: DecodedDataset | StreamingImages,
    batch_size: int,
    shuffle: bool,
    drop_last: bool,
    workers: int = 0,
    replacement: bool = False,
) -> DataLoader:
    """Batches of {"pixel_values": (B, 3, H, W) uint8, ...}.

    Decoded images need no workers: a batch is one index operation, faster than sending it from another process.

    With `replacement`, each image of a batch is drawn from all of them and not from those that the epoch has not yet shown, and an
    epoch is a number of images. A memory bank wants that: else what it says of an image that is shown is always older than what
    it says of most others, which a critic can tell.

    Raises:
        UsageError: shuffling asked of a stream, or fewer images than a batch where a smaller last batch is dropped.

    Example:
        >>> loader = data_loader(DecodedDataset(pixels), batch_size=256, shuffle=True, drop_last=True)
    """
    if batch_size < 1:
        raise UsageError(f"the batch size is {batch_size}: give a number of images from 1 on.")
    settings = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        # Of its own: an iterator draws a seed when it is made, and one that a resumed run makes would shift all that follow.
        "generator": torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ()))),
    }
    if isinstance(images, IterableDataset):
        if shuffle:
            raise UsageError(
                "a stream cannot be shuffled here: shuffle it before, with stream.shuffle(buffer_size=...)."
            )
        return DataLoader(images, collate_fn=collate_padded, **settings)
    if drop_last and len(images) < batch_size:
        raise UsageError(
            f"there are {len(images)} images and a batch takes {batch_size}: "
            f"use more images, or a batch size of at most {len(images)}."
        )
    if replacement:
        sampler = RandomSampler(images, replacement=True, generator=settings["generator"])
        return DataLoader(images, sampler=sampler, collate_fn=collate, **settings)
    return DataLoader(images, shuffle=shuffle, collate_fn=collate, **settings)


def every_image(images: DecodedDataset, batch_size: int) -> DataLoader:
    """All images in their order, batch by batch, once; the last batch is filled up with the first images.

    Example:
        >>> loader = every_image(DecodedDataset(torch.zeros(10, 3, 32, 32, dtype=torch.uint8)), batch_size=4)
        >>> [batch["sample_index"].tolist() for batch in loader]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    """
    places = math.ceil(len(images) / batch_size) * batch_size
    order = [place % len(images) for place in range(places)]
    return DataLoader(images, batch_size, sampler=order, collate_fn=collate, pin_memory=torch.cuda.is_available())
