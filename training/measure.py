"""What evaluate.py and compare.py share: the settings of an evaluation, and one checkpoint -> its rows.

Not in evaluate.py, whose name is also that of a library.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from omegaconf import MISSING, OmegaConf

from hf_infomax import data
from hf_infomax.evaluation import (
    DEFAULT_PROBES,
    LabelledImages,
    Row,
    evaluate_models,
    labelled_images,
    load_encoder,
    random_twin,
    target_names,
)
from metrics import read_history
from recipe import precision, read_settings


@dataclass
class DataSettings:
    dataset: str = MISSING  # the run's own by default
    config: str | None = None
    train_split: str = "train"  # probes are fitted on it
    eval_split: str = "test"
    image_column: str | None = None
    on_corrupt: str = "stop"


@dataclass
class Evaluation:
    data: DataSettings = field(default_factory=DataSettings)
    targets: list[str] = field(default_factory=list)  # columns to ask for; empty: labels and real-valued columns
    layers: list[str] = field(default_factory=list)  # empty: all
    probes: list[str] = field(default_factory=lambda: list(DEFAULT_PROBES))  # knn, linear, sgd, svm, mlp
    # label_free, few_labels, infonce (between a model's views), mine, ndm, ms_ssim, finetune
    measures: list[str] = field(default_factory=lambda: ["label_free"])
    # of a probe or a measure, as options.mlp.epochs=100
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    probe_seeds: int = 1  # of each probe that chance has a part in; from two on, a row is their mean with its spread
    baselines: bool = True  # the first checkpoint's random initialisation, and raw pixels, as well
    pretrained: bool = True  # of timm and transformers; false: random weights
    train_images: int = 20_000  # at most, drawn at random; all of them vote in the kNN
    probe_images: int | None = None  # of which what is fitted is fitted on so many; None: on all
    eval_images: int = 10_000
    precision: str = "auto"
    seed: int = 0  # of the random initialisation, and the first of the probes' seeds
    cache: bool = True  # keep the features on disk
    figures: bool = True  # draw them, and write the report
    ablation: str | None = None  # a folder of evaluated runs of Deep InfoMax: heat maps over alpha, beta and gamma
    output: str | None = None  # results.json; None: beside the checkpoint; of several, in outputs/evaluation
    card: str | None = None  # a folder for results.json and table.md to be published: without paths of this machine


class Splits(NamedTuple):
    """The images of an evaluation."""

    train: LabelledImages
    test: LabelledImages
    class_names: list[str] | None  # of the first class label


def processes() -> PartialState:
    """This process among those of the command, and its device; on a CPU Accelerate has to be told that they are one run."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU", not torch.accelerator.is_available()))


def run_folder(checkpoint: str) -> Path | None:
    """The folder of the run that a checkpoint belongs to: where its recipe and its results are."""
    for folder in (Path(checkpoint), Path(checkpoint).parent):
        if (folder / "recipe.yaml").is_file():
            return folder
    return None


def load_settings(checkpoint: str, overrides: list[str]) -> Evaluation:
    """The settings of an evaluation: the run's dataset, then the overrides."""
    base: dict[str, Any] = {}
    if folder := run_folder(checkpoint):
        source = OmegaConf.load(folder / "recipe.yaml").data
        base["data"] = {key: source[key] for key in ("dataset", "config", "image_column", "on_corrupt")}
    return read_settings(Evaluation, base, overrides)


def subset(split: datasets.Dataset, count: int) -> datasets.Dataset:
    return split.shuffle(seed=0).select(range(count)) if count < len(split) else split


def load_splits(settings: Evaluation, image_size: int) -> Splits:
    """The images of an evaluation, decoded at a model's size."""
    source = settings.data
    splits = [
        subset(data.load_dataset(source.dataset, split, config=source.config), count)
        for split, count in (
            (source.train_split, settings.train_images),
            (source.eval_split, settings.eval_images),
        )
    ]
    targets = settings.targets or target_names(splits[0])
    images = [labelled_images(split, image_size, targets, source.image_column, source.on_corrupt) for split in splits]
    label = data.find_label_column(splits[0])
    feature = splits[0].features[label] if label else None
    return Splits(*images, feature.names if isinstance(feature, datasets.ClassLabel) else None)


def load_model(checkpoint: str, settings: Evaluation) -> torch.nn.Module:
    """The encoder of any checkpoint, on this process' device."""
    torch.manual_seed(settings.seed)  # of random weights
    model = load_encoder(checkpoint, settings.pretrained)
    return model.to(processes().device, memory_format=torch.channels_last)


def measure(checkpoint: str, settings: Evaluation, name: str | None = None) -> list[Row]:
    """The rows of one checkpoint under a name, "trained" by default, and of its baselines; a collective call."""
    name = name or ("trained" if settings.pretrained else "as given")
    model = load_model(checkpoint, settings)
    models: dict[str, torch.nn.Module | None] = {name: model}
    if settings.baselines:
        torch.manual_seed(settings.seed)
        untrained = random_twin(model).to(processes().device, memory_format=torch.channels_last)
        models |= {"random init": untrained, "raw pixels": None}
    with processes().main_process_first():  # the others find what the first one decoded
        splits = load_splits(settings, model.config.image_size)
    source = settings.data
    rows = evaluate_models(
        models,
        splits.train,
        splits.test,
        source.dataset,
        source.eval_split,
        layers=settings.layers or None,
        probes=settings.probes,
        measures=settings.measures,
        seeds=range(settings.seed, settings.seed + settings.probe_seeds),
        options=settings.options,
        probe_images=settings.probe_images,
        precision=precision(settings.precision),
        cache=settings.cache,
    )
    rows = list(rows)
    if "label_free" in settings.measures:  # of which the run's own bound is one
        rows += trained_bound(checkpoint, name, model.feature_layers[-1], settings.seed)
    return rows


def trained_bound(checkpoint: str, name: str, layer: str, seed: int) -> Iterator[Row]:
    """The bound in nats at the end of a run's training, the mean over the last twentieth of its records, where it has one."""
    folder = run_folder(checkpoint)
    bounds = [record["bound"] for record in read_history(folder) if record.get("bound") is not None] if folder else []
    if bounds:
        recipe = OmegaConf.load(folder / "recipe.yaml").data
        last = fmean(bounds[-max(1, len(bounds) // 20) :])
        source = {"dataset": recipe.dataset, "split": recipe.train_split, "seeds": (seed,)}
        yield Row(name, layer, "bound in training", "views", metric="nats", value=last, **source)
