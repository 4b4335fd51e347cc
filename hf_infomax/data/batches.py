"""Decoded images, or a stream -> batches, as dicts of named tensors.

Pixels stay uint8 up to the training device, where the recipe turns them into views: a quarter of the memory and of the
transfer. A batch of decoded images is one index operation, not one item at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import datasets
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from hf_infomax.models.errors import UsageError

from .images import CorruptImage, OnCorrupt, check_settings, corrupt_image_error, decode, warn_of_skipped

Batch = dict[str, Tensor]


class DecodedDataset(Dataset[Batch]):
    """Images in memory, read a batch at a time.

    A batch is {"pixel_values": (B, 3, H, W) uint8, "sample_index": (B,) int64} and the extra columns. `sample_index` is
    the image's place in `pixels`, 0 to N - 1: what a memory bank of N rows is addressed with (not the dataset's row,
    which differs where corrupt images were skipped: see `DecodedImages.indices`).

    Args:
        pixels: (N, 3, H, W) uint8, as `decode_images` gives it.
        columns: further tensors of N rows, by name; for example {"labels": ...}.

    Raises:
        UsageError: a column of another length, or with a name that is taken.

    Example:
        >>> dataset = DecodedDataset(torch.zeros(100, 3, 32, 32, dtype=torch.uint8))
        >>> dataset.__getitems__([3, 1])["sample_index"]
        tensor([3, 1])
    """

    def __init__(self, pixels: Tensor, columns: Mapping[str, Tensor] | None = None) -> None:
        self.pixels = pixels
        self.columns = dict(columns or {})
        for name, column in self.columns.items():
            if name in ("pixel_values", "sample_index"):
                raise UsageError(f"the column '{name}' would replace the batch's own: give it another name.")
            if len(column) != len(pixels):
                raise UsageError(
                    f"the column '{name}' has {len(column)} rows and there are {len(pixels)} images: "
                    "take its rows at DecodedImages.indices."
                )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Batch:
        return {name: column[0] for name, column in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch at `indices`; `DataLoader` calls this once a batch where it exists."""
        index = torch.as_tensor(indices, dtype=torch.int64)  # (B,)
        columns = {name: column[index] for name, column in self.columns.items()}
        return {"pixel_values": self.pixels[index], "sample_index": index, **columns}


class StreamingImages(IterableDataset[Batch]):
    """Images decoded as a stream brings them, by the same rules as `decode_images`.

    Yields {"pixel_values": (3, H, W) uint8}; there is no `sample_index`, since a stream has none. The stream comes
    shuffled (`stream.shuffle(buffer_size=...)`) and divided among processes
    (`datasets.distributed.split_dataset_by_node`) by the caller. `datasets` itself divides its shards among the workers
    of a `DataLoader`; those beyond the number of shards idle.

    Args:
        stream: what `load_dataset(..., streaming=True)` gives.
        image_column, image_size, on_corrupt: as in `decode_images`. Under "skip" the count is warned of after each
            pass.

    Raises:
        UsageError: when iterated, for a corrupt image under "stop".

    Example:
        >>> stream = load_dataset("hf_infomax/colour_digits", "train", streaming=True).shuffle(seed=0, buffer_size=1000)
        >>> next(iter(StreamingImages(stream, "image", image_size=32)))["pixel_values"].shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self, stream: datasets.IterableDataset, image_column: str, image_size: int, on_corrupt: OnCorrupt = "stop"
    ) -> None:
        check_settings(image_size, on_corrupt)
        self.stream = stream.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
        self.image_column = image_column
        self.image_size = image_size
        self.on_corrupt = on_corrupt

    def set_epoch(self, epoch: int) -> None:
        """Another order for another epoch; Accelerate's loaders call it."""
        self.stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        skipped, row = 0, -1
        # Inside a worker `datasets` reads that worker's shards only: nothing is to be divided here.
        for row, example in enumerate(self.stream):
            try:
                pixels = decode(example[self.image_column], self.image_size)
            except CorruptImage as error:
                if self.on_corrupt == "stop":
                    raise corrupt_image_error(f"place {row} of the stream, as read,", error) from error
                skipped += 1
                continue
            yield {"pixel_values": torch.tensor(pixels)}
        if skipped:
            warn_of_skipped(skipped, row + 1)


def collate(batch: Batch) -> Batch:
    """The batch itself: `DecodedDataset` has put it together already."""
    return batch


def data_loader(
    images: DecodedDataset | StreamingImages, batch_size: int, shuffle: bool, drop_last: bool, workers: int = 0
) -> DataLoader:
    """Batches of {"pixel_values": (B, 3, H, W) uint8, ...}.

    Decoded images need no workers: a batch is one index operation, faster than sending it from another process.

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
        return DataLoader(images, collate_fn=default_collate, **settings)
    if drop_last and len(images) < batch_size:
        raise UsageError(
            f"there are {len(images)} images and a batch takes {batch_size}: "
            f"use more images, or a batch size of at most {len(images)}."
        )
    return DataLoader(images, shuffle=shuffle, collate_fn=collate, **settings)
