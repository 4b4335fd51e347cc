"""Where a recipe's images come from: the loader of the training split."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from datasets.distributed import split_dataset_by_node
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import IterableDataset as TorchIterableDataset

import hf_infomax
from hf_infomax import data
from hf_infomax.data.clips import Window
from hf_infomax.models.errors import choose
from recipe import DataRecipe, Recipe

AnyDataset = datasets.Dataset | datasets.IterableDataset


# What a further column holds, as the views take it -> as it is decoded.
COLUMN_KINDS = {"values": "values", "labels": "labels", "normals": "pixels", "pixels": "pixels"}


def view_options(recipe: Recipe) -> dict[str, Any]:
    """`views.*` of a recipe as the arguments of `hf_infomax.data.recipes.load`, with the run's seed and further columns.

    Raises:
        UsageError: two further views of one name.
    """
    settings = recipe.data
    columns = dict(settings.columns)
    for names, kind in ((settings.frames, "pixels"), (settings.flow, "flow")):
        for name in names:
            if name in columns:
                raise hf_infomax.UsageError(
                    f"two views are named '{name}' in data.columns, data.frames and data.flow: give each its own name."
                )
            columns[name] = kind
    return {"recipe": "dim", **recipe.views, "seed": recipe.train.seed, "columns": columns}


def column_kinds(settings: DataRecipe) -> dict[str, str]:
    """The further columns by how they are decoded."""
    return {name: choose("kind of column", kind, COLUMN_KINDS) for name, kind in settings.columns.items()}


def load_split(recipe: Recipe, split: str) -> AnyDataset:
    return data.load_dataset(recipe.data.dataset, split, config=recipe.data.config, streaming=recipe.data.streaming)


def training_loader(
    recipe: Recipe, image_size: int, accelerator: Accelerator, replacement: bool = False
) -> tuple[DataLoader, int | None]:
    """The loader of the training split and its number of images: decoded once and mapped, or a stream of unknown length.

    Every epoch drops its last incomplete batch: the number of negatives, and with it the bound, is the same at every step.
    A stream's loader is prepared already, for each process reads a part of its own: `accelerator.prepare` leaves it alone.

    Raises:
        UsageError: the data or a setting has something that the user can mend.
    """
    settings, batch_size, processes = recipe.data, recipe.train.batch_size, accelerator.num_processes
    if batch_size % processes:
        raise hf_infomax.UsageError(
            f"train.batch_size={batch_size} cannot be shared evenly by {processes} processes: use a multiple of {processes}."
        )
    with accelerator.main_process_first():  # the others find what the first one cached
        split = load_split(recipe, settings.train_split)
    column = data.find_image_column(split, settings.image_column)
    for name in settings.columns:
        data.find_image_column(split, name)
    sequences = sequences_of(split, settings)
    if not settings.streaming:
        images = decoded_dataset(split, column, image_size, settings, sequences)
        loader = data.data_loader(images, batch_size, True, True, settings.workers, replacement)
        return loader, len(images)
    if settings.replacement:
        raise hf_infomax.UsageError("A stream cannot be drawn from with replacement: set data.streaming=false.")
    if recipe.train.max_steps is None:
        raise hf_infomax.UsageError("A stream has no known length: set train.max_steps, with data.streaming=true.")
    split = split.shuffle(seed=recipe.train.seed, buffer_size=settings.shuffle_buffer)
    split = split_dataset_by_node(split, accelerator.process_index, processes)
    images = data.StreamingImages(
        split,
        column,
        on_corrupt=settings.on_corrupt,
        columns=column_kinds(settings),
        **size_options(image_size, settings),
    )
    part = data.data_loader(images, batch_size // processes, shuffle=False, drop_last=True, workers=settings.workers)
    return prepared(StreamPart(part, processes), accelerator), None


def size_options(image_size: int, settings: DataRecipe) -> dict[str, int]:
    """How large the images are decoded: squares of the model's size, or keeping their aspect for views that crop."""
    return {"shorter_side": settings.shorter_side} if settings.shorter_side else {"image_size": image_size}


def sequences_of(split: AnyDataset, settings: DataRecipe) -> list[Hashable] | None:
    """The sequence of every row, or None where the recipe has no views of other frames.

    Raises:
        UsageError: such views without a column of sequences, or of a stream.
    """
    if not settings.frames and not settings.flow:
        return None
    if settings.streaming:
        raise hf_infomax.UsageError(
            "data.frames and data.flow read other rows of a sequence, which a stream does not keep: set data.streaming=false."
        )
    if settings.sequence_column is None:
        raise hf_infomax.UsageError(
            "data.frames and data.flow need to know which rows are of one clip: set data.sequence_column."
        )
    feature = data.require_column(split, settings.sequence_column)
    if not isinstance(feature, (datasets.Value, datasets.ClassLabel)):
        raise hf_infomax.UsageError(
            f"the column '{settings.sequence_column}' holds no plain values: set data.sequence_column to one of "
            "numbers or strings."
        )
    return split[settings.sequence_column][:]


def decoded_dataset(
    split: datasets.Dataset,
    column: str,
    image_size: int,
    settings: DataRecipe,
    sequences: Sequence[Hashable] | None = None,
    rows: Tensor | None = None,
) -> data.DecodedDataset:
    """The image column and the further columns, row by row beside each other, and the views of other frames.

    Args:
        sequences: of every row, where the recipe has views of other frames.
        rows: (M,), which of these rows are left in `split`; None: all.
    """

    # Every process may come first to the cache's lock, and the one that does shows the bar.
    def decoded(name: str, kind: str, on_missing: str) -> data.DecodedImages:
        policies = {"on_corrupt": settings.on_corrupt, "on_missing": on_missing}
        return data.decode_images(split, name, kind=kind, **policies, **size_options(image_size, settings))

    main = decoded(column, "pixels", "corrupt")
    further = {name: decoded(name, kind, "blank") for name, kind in column_kinds(settings).items()}
    rows = torch.arange(len(split)) if rows is None else rows
    whole = set(main.indices.tolist()).intersection(*(found.indices.tolist() for found in further.values()))
    if len(whole) < max(len(found.indices) for found in (main, *further.values())):
        # A row that one column skipped goes from the others too; the sequences keep its place.
        kept = sorted(whole)
        return decoded_dataset(split.select(kept), column, image_size, settings, sequences, rows[kept])
    columns = {name: found.pixels for name, found in further.items()}
    present = {name: found.present for name, found in further.items()}
    windows = clip_columns(main.pixels, data.Clips(sequences, rows[main.indices]), settings) if sequences else {}
    present |= {name: window.present for name, window in windows.items()}
    return data.DecodedDataset(main.pixels, columns | windows, present)


def clip_columns(images: Tensor | data.VariableImages, clips: data.Clips, settings: DataRecipe) -> dict[str, Window]:
    """The views of other frames: these themselves, and the optical flow around each image."""
    columns = {name: clips.frames(images, step) for name, step in settings.frames.items()}
    if settings.flow:
        for length in settings.flow.values():
            clips.around(length)  # what is wrong with it is said before the fields are computed
        fields = data.optical_flow(images, clips)
        columns |= {name: clips.flow(fields, length) for name, length in settings.flow.items()}
    return columns


class StreamPart(TorchIterableDataset):
    """The batches of one process' part of a stream; every process ends its epoch where the shortest part does.

    Otherwise those that go on would wait, in the next backward pass, for those that have ended. The processes agree before
    every batch, through a group on the CPU: asked of a GPU, they would wait for all of its work first.

    Args:
        loader: of this process' part.
        processes: how many there are.

    Raises:
        UsageError: when iterated, for a part that ends before its first batch.
    """

    def __init__(self, loader: DataLoader, processes: int):
        self.loader = loader
        self.group = torch.distributed.new_group(backend="gloo") if processes > 1 else None

    def set_epoch(self, epoch: int) -> None:
        self.loader.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        batches, count = iter(self.loader), 0
        while not self._any_ended(batch := next(batches, None)):
            yield batch
            count += 1
        if not count:
            raise hf_infomax.UsageError(
                f"the stream ends before its first batch, which takes {self.loader.batch_size} images from each process' "
                "(and each worker's) part: use more images, a smaller train.batch_size, or data.streaming=false."
            )

    def _any_ended(self, batch: dict[str, Tensor] | None) -> bool:
        if self.group is None:
            return batch is None
        ended = torch.tensor(int(batch is None))
        torch.distributed.all_reduce(ended, torch.distributed.ReduceOp.MAX, self.group)
        return bool(ended)


def prepared(part: StreamPart, accelerator: Accelerator) -> DataLoader:
    """Accelerate's loader of a stream's part: on the device, with epochs and skipping, but neither divided nor dealt out."""
    loader = prepare_data_loader(
        DataLoader(part, batch_size=None),
        accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
        dispatch_batches=False,
    )
    loader._is_accelerate_prepared = True  # or `accelerator.prepare` would have process 0 read and deal out
    return loader
