"""What evaluate.py and compare.py share: the settings of an evaluation, and one checkpoint -> its rows.

Not in evaluate.py, whose name is also that of a library.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import timm
import torch
from omegaconf import MISSING, OmegaConf
from transformers import AutoModel

import hf_infomax
from hf_infomax import data
from hf_infomax.evaluation import PROBES, Row, evaluate_models, labelled_images, target_names, view_information
from hf_infomax.models.errors import unknown_name
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
    probes: list[str] = field(default_factory=lambda: list(PROBES))
    baselines: bool = True  # random initialisation and raw pixels as well
    pretrained: bool = True  # of timm/NAME
    train_images: int = 20_000  # at most, drawn at random; all of them vote in the kNN
    probe_images: int | None = None  # of which the linear probes are fitted on so many; None: on all
    eval_images: int = 10_000
    bound_images: int = (
        0  # of each split; > 1: how well a view of an image finds the other among so many, InfoNCE in nats
    )
    precision: str = "auto"
    seed: int = 0  # of the random initialisation and of the probes' held-out tenth
    output: str | None = None  # results.json; None: beside the checkpoint
    card: str | None = None  # a folder for results.json and table.md to be published: without paths of this machine


def load_encoder(checkpoint: str, pretrained: bool = True) -> torch.nn.Module:
    """The encoder of a run's folder, a Hub id or timm/NAME.

    Raises:
        UsageError: nothing of that name can be loaded.
    """
    if checkpoint.startswith("timm/"):
        name = checkpoint.removeprefix("timm/")
        if not timm.is_model(name):
            raise unknown_name("timm model", name, timm.list_models())
        trained_on = timm.get_pretrained_cfg(name)
        config = hf_infomax.DIMConfig(  # DIM's encoder reads any timm model of one RGB view
            backbone=name,
            representation_size=None,
            image_size=trained_on.input_size[-1],
            image_mean=list(trained_on.mean),
            image_std=list(trained_on.std),
        )
        model = hf_infomax.DIMModel(config)
        if pretrained:
            weights = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
            model.encoders["RGB"].backbone.load_state_dict(weights)
        return model
    folder = Path(checkpoint) / "model" if (Path(checkpoint) / "model").is_dir() else Path(checkpoint)
    try:
        return AutoModel.from_pretrained(folder if folder.is_dir() else checkpoint)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise hf_infomax.UsageError(f"No model can be loaded from '{checkpoint}': {reason}") from error


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


def measure(checkpoint: str, settings: Evaluation) -> list[Row]:
    """The rows of one checkpoint and its baselines."""
    model = load_encoder(checkpoint, settings.pretrained)
    models: dict[str, torch.nn.Module | None] = {"trained" if settings.pretrained else "as given": model}
    if settings.baselines:
        torch.manual_seed(settings.seed)
        models |= {"random init": type(model)(model.config), "raw pixels": None}
    source = settings.data
    splits = [
        subset(data.load_dataset(source.dataset, split, config=source.config), count)
        for split, count in (
            (source.train_split, settings.train_images),
            (source.eval_split, settings.eval_images),
        )
    ]
    targets = settings.targets or target_names(splits[0])
    train, test = (
        labelled_images(split, model.config.image_size, targets, source.image_column, source.on_corrupt)
        for split in splits
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for network in filter(None, models.values()):
        network.to(device, memory_format=torch.channels_last)
    rows = evaluate_models(
        models,
        train,
        test,
        source.dataset,
        source.eval_split,
        layers=settings.layers or None,
        probes=settings.probes,
        seed=settings.seed,
        probe_images=settings.probe_images,
        precision=precision(settings.precision),
    )
    rows = list(rows)
    if settings.bound_images and len(model.feature_views) > 1:
        found = view_information(model, train.pixels, test.pixels, settings.bound_images)
        common = {"dataset": source.dataset, "split": source.eval_split, "metric": "nats", "seeds": (settings.seed,)}
        trained, layer = next(iter(models)), model.feature_layers[-1]
        targets = found if len(found) > 1 else dict(zip(["the other view"], found.values(), strict=True))
        rows += [Row(trained, layer, "infonce", target, value=value, **common) for target, value in targets.items()]
    return rows
