"""The suite: a model and a dataset -> the rows of a table, layers x probes x targets, beside what learned nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from datasets import Dataset
from torch import Tensor, nn

from hf_infomax import data
from hf_infomax.models.errors import UsageError, unknown_name

from .features import extract_features, pixel_features
from .knn import knn_accuracy
from .probes import linear_probe, linear_regression_probes
from .table import Row

PROBES = ("knn", "linear")


@dataclass(frozen=True)
class LabelledImages:
    """A split, decoded: `pixels` (N, 3, H, W) uint8, and each target (N,) int64 for classes or (N, d) float32 for factors."""

    pixels: Tensor
    targets: Mapping[str, Tensor]


def target_names(split: Dataset) -> list[str]:
    """What can be asked of a split: its class labels, then its real-valued columns and lists of such.

    The label comes first. A dataset without any column of these kinds gives an empty list.
    """
    label = data.find_label_column(split)
    found = [label] if label else []
    for name, feature in split.features.items():
        inner = feature.feature if isinstance(feature, datasets.List) else feature
        if name not in found and isinstance(inner, datasets.Value) and inner.dtype.startswith(("float", "int")):
            found.append(name)
    return found


def labelled_images(
    split: Dataset, image_size: int, targets: Sequence[str], image_column: str | None = None, on_corrupt: str = "stop"
) -> LabelledImages:
    """Decode a split and read its targets.

    Args:
        split: as `hf_infomax.data.load_dataset` gives it.
        image_size: side in pixels.
        targets: columns to read; "x+y" joins two real-valued columns into one target.
        image_column, on_corrupt: as in `hf_infomax.data.decode_images`.

    Raises:
        UsageError: a column is missing, or an image is corrupt.
    """
    column = data.find_image_column(split, image_column)
    decoded = data.decode_images(split, column, image_size, on_corrupt=on_corrupt)
    columns = {}
    for name in targets:
        features = [data.require_column(split, part) for part in name.split("+")]
        parts = [torch.tensor(split[part][:])[decoded.indices] for part in name.split("+")]
        if isinstance(features[0], datasets.ClassLabel) or name == data.find_label_column(split):
            columns[name] = parts[0].long()
        else:
            columns[name] = torch.cat([part.float().reshape(len(part), -1) for part in parts], dim=1)  # (N, d)
    return LabelledImages(decoded.pixels, columns)


def evaluate_features(
    train: Mapping[str, Tensor],
    test: Mapping[str, Tensor],
    train_targets: Mapping[str, Tensor],
    test_targets: Mapping[str, Tensor],
    model: str,
    dataset: str,
    split: str,
    probes: Sequence[str] = PROBES,
    k: int = 20,
    seed: int = 0,
    probe_images: int | None = None,
) -> Iterator[Row]:
    """Ask every layer's features for every target by every probe that fits it.

    Classes are asked by a weighted kNN (cosine, temperature 0.1) and by logistic regression, in accuracy; real-valued factors
    by linear regression, in R2. Regularisation is chosen on a held-out tenth of the training features, never on the test split.

    Args:
        train, test: layer -> (N, F) and (M, F) features.
        train_targets, test_targets: name -> (N,) classes or (N, d) factors, and likewise of M rows.
        model, dataset, split: the names in the rows.
        probes: "knn", "linear" or both.
        k: voters of the kNN.
        seed: of the held-out tenth, and the rows' own.
        probe_images: the linear probes are fitted on that many first rows; the kNN, which fits nothing, has all vote.

    Yields:
        One `Row` for each (layer, probe, target), as it is measured.

    Raises:
        UsageError: there is no such probe.
    """
    for probe in probes:
        if probe not in PROBES:
            raise unknown_name("probe", probe, PROBES)
    classes = {name: values for name, values in train_targets.items() if values.dim() == 1}
    factors = {name: values[:probe_images] for name, values in train_targets.items() if values.dim() == 2}
    for layer, features in train.items():
        common = {"model": model, "layer": layer, "dataset": dataset, "split": split, "seeds": (seed,)}
        for target, labels in classes.items():
            if "knn" in probes:
                accuracy = knn_accuracy(test[layer], test_targets[target], features, labels, k=k)
                yield Row(probe=f"knn{k}", target=target, metric="accuracy", value=accuracy, **common)
            if "linear" in probes:
                fitted = features[:probe_images], labels[:probe_images]
                result = linear_probe(*fitted, test[layer], test_targets[target], seed=seed)
                yield Row(probe="linear", target=target, metric=result.metric, value=result.value, **common)
        if "linear" in probes and factors:
            results = linear_regression_probes(features[:probe_images], factors, test[layer], test_targets, seed=seed)
            for target, result in results.items():
                yield Row(probe="linear", target=target, metric=result.metric, value=result.value, **common)


def evaluate_models(
    models: Mapping[str, nn.Module | None],
    train: LabelledImages,
    test: LabelledImages,
    dataset: str,
    split: str,
    layers: Sequence[str] | None = None,
    precision: str | None = None,
    **options: Any,
) -> Iterator[Row]:
    """`evaluate_features`, which takes the `options`, for several models on the same images; None stands for the raw pixels.

    >>> from hf_infomax.data import load_dataset  # doctest: +SKIP
    >>> train, test = (
    ...     labelled_images(load_dataset("hf_infomax/colour_digits", s), 32, ["label"]) for s in ("train", "test")
    ... )  # doctest: +SKIP
    >>> rows = list(
    ...     evaluate_models({"trained": model, "pixels": None}, train, test, "digits", "test")
    ... )  # doctest: +SKIP
    """
    if not train.targets:
        raise UsageError("The dataset has no column to ask for: name one with targets=[...], such as targets=[label].")
    for name, model in models.items():
        features = [
            pixel_features(images.pixels)
            if model is None
            else extract_features(model, images.pixels, layers, precision=precision)
            for images in (train, test)
        ]
        yield from evaluate_features(*features, train.targets, test.targets, name, dataset, split, **options)
