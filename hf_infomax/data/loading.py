"""A dataset by its name, and the columns in it.

A name is what `datasets.load_dataset` takes (a Hub id, or a local folder of images or parquet files) or that of an
embedded dataset, `hf_infomax/...`, which is caught here before anything asks the Hub. Every mistake that a user can
make in a name, a split or a column ends in a `UsageError` of one sentence.
"""

from __future__ import annotations

import os

import datasets
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError

from hf_infomax.models.errors import UsageError

from .colour_digits import ColourDigits
from .scenes import Scenes

EMBEDDED_PREFIX = "hf_infomax/"
EMBEDDED: dict[str, type[datasets.DatasetBuilder]] = {
    "hf_infomax/colour_digits": ColourDigits,
    "hf_infomax/scenes": Scenes,
}

LABEL_NAMES = ("label", "labels", "fine_label")

AnyDataset = datasets.Dataset | datasets.IterableDataset


def load_dataset(name: str, split: str, *, config: str | None = None, streaming: bool = False) -> AnyDataset:
    """One split of a dataset, as `datasets.load_dataset(name, config, split=split, streaming=streaming)` gives it.

    Args:
        name: a Hub id (`uoft-cs/cifar10`), a local folder, or an embedded dataset (a key of `EMBEDDED`).
        split: as in `datasets`: `train`, `train[:1000]`, `train[90%:]`, `train+test`. A stream takes no slices, as
            there.
        config: the dataset's configuration, where it has several.
        streaming: an `IterableDataset` that is read as it is used, rather than a `Dataset` prepared in the cache.

    Raises:
        UsageError: the dataset, its configuration or its split does not exist, cannot be read, or is empty.

    Example:
        >>> load_dataset("hf_infomax/colour_digits", "train[:1000]").num_rows
        1000
    """
    builder = _builder(name, config)
    return _stream(builder, name, split) if streaming else _prepared(builder, name, split)


def require_column(dataset: AnyDataset, column: str) -> datasets.features.features.FeatureType:
    """The feature of `column`, or a `UsageError` that lists the columns there are.

    Example:
        >>> require_column(load_dataset("hf_infomax/colour_digits", "test"), "size")
        Value('int32')
    """
    features = _features(dataset)
    if column not in features:
        raise UsageError(f"the dataset has no column '{column}': choose one of {_listed(features)}.")
    return features[column]


def find_image_column(dataset: AnyDataset, column: str | None = None) -> str:
    """`column`, checked to hold images, or the first column that does.

    Raises:
        UsageError: no such column, or it holds no images (the message lists those that do), or no column does.
    """
    features = _features(dataset)
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise UsageError(
            f"no column of the dataset holds images: cast one of {_listed(features)} to datasets.Image before use."
        )
    if column not in (None, *images):
        wrong = (
            f"the column '{column}' holds no images" if column in features else f"the dataset has no column '{column}'"
        )
        raise UsageError(f"{wrong}: its columns of images are {_listed(images)}.")
    return column or images[0]


def find_label_column(dataset: AnyDataset, column: str | None = None) -> str | None:
    """`column`, checked to exist; or a column of classes; or None where the dataset has none.

    A column of classes is a `ClassLabel`, or plain values under the name label, labels or fine_label (a *label* that is
    an image, as in segmentation, is not one). Among several `ClassLabel`s these names come first.

    Raises:
        UsageError: no column of the name that was given.
    """
    if column is not None:
        require_column(dataset, column)
        return column
    features = _features(dataset)
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [name for name in LABEL_NAMES if isinstance(features.get(name), datasets.Value)]
    candidates = [name for name in LABEL_NAMES if name in classes] + classes + plain
    return candidates[0] if candidates else None


def _builder(name: str, config: str | None) -> datasets.DatasetBuilder:
    """What prepares the dataset: found, nothing prepared yet."""
    if name.startswith(EMBEDDED_PREFIX) and name not in EMBEDDED:
        raise UsageError(f"there is no embedded dataset '{name}': choose one of {_listed(EMBEDDED)}.")
    path = os.path.expanduser(name)
    # The Hub's client would take such a name for a repository's, and complain of its letters.
    if name.startswith(("/", ".", "~")) and not os.path.isdir(path):
        raise UsageError(f"the dataset folder '{name}' does not exist: give a folder of images or of parquet files.")
    try:
        if name in EMBEDDED:
            return EMBEDDED[name](config_name=config)
        return datasets.load_dataset_builder(path, config)
    except FileNotFoundError as error:
        if isinstance(error, DataFilesNotFoundError) or os.path.isdir(path):
            raise UsageError(
                f"the dataset '{name}' has no data files: give a folder of images or of parquet files."
            ) from error
        raise UsageError(
            f"the dataset '{name}' is neither a folder here nor a dataset on the Hub that you may read: "
            f"check the name, or use an embedded dataset ({_listed(EMBEDDED)})."
        ) from error
    except OSError as error:  # ConnectionError and the Hub's HTTP errors among them
        raise UsageError(
            f"the dataset '{name}' is no folder here and the Hub cannot be asked for it ({_first_line(error)}): "
            f"give a local folder, or use an embedded dataset ({_listed(EMBEDDED)})."
        ) from error
    except (ValueError, RuntimeError) as error:  # an unknown configuration, a mixture of formats, a script, a bad name
        raise UsageError(f"the dataset '{name}' cannot be loaded: {_first_line(error)}") from error


def _prepared(builder: datasets.DatasetBuilder, name: str, split: str) -> datasets.Dataset:
    try:
        builder.download_and_prepare()
    except (DatasetGenerationError, OSError, ValueError) as error:  # a broken file; a full disk; the Hub out of reach
        raise _unreadable(name, error) from error
    try:
        dataset = builder.as_dataset(split)
    except (ValueError, AssertionError) as error:  # AssertionError: a slice in reverse, or of more than 100 %
        raise UsageError(
            f"the dataset '{name}' has no split '{split}': its splits are {_listed(builder.info.splits)}, "
            f"and slices are written as train[:1000] or train[90%:]."
        ) from error
    if len(dataset) == 0:
        raise UsageError(f"the split '{split}' of the dataset '{name}' is empty: choose a larger slice.")
    return dataset


def _stream(builder: datasets.DatasetBuilder, name: str, split: str) -> datasets.IterableDataset:
    try:
        splits = builder.as_streaming_dataset()
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    try:
        return builder.as_streaming_dataset(split)
    except ValueError as error:
        raise UsageError(
            f"the dataset '{name}' has no split '{split}' to stream: its splits are {_listed(splits)}, "
            f"and slices need streaming=false."
        ) from error


def _unreadable(name: str, error: Exception) -> UsageError:
    cause = error.__cause__ or error
    return UsageError(f"the dataset '{name}' cannot be read ({_first_line(cause)}): check or replace its files.")


def _features(dataset: AnyDataset) -> datasets.Features:
    if dataset.features is None:  # a stream after `map`, or of untyped files
        raise UsageError("the stream does not say which columns it has: give it features, with IterableDataset.cast.")
    return dataset.features


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
