"""The figures of an evaluation: rows and checkpoints -> PNGs, by the names that the page knows them by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForPreTraining

from hf_infomax import DIMForPreTraining
from hf_infomax.data import recipes
from hf_infomax.evaluation import (
    Row,
    cached_features,
    nearest_neighbours,
    plot_ablation,
    plot_label_curves,
    plot_layers,
    plot_loss_maps,
    plot_neighbours,
    plot_projection,
    plot_tradeoff,
    plot_training,
    project,
    read_ablation,
)
from hf_infomax.evaluation.features import to_unit_range
from hf_infomax.evaluation.label_curves import is_few_labels
from hf_infomax.evaluation.series import RAW_PIXELS
from measure import Evaluation, Splits, load_model, load_splits, run_folder
from metrics import read_history
from recipe import precision

PROJECTED = 2000  # images of the two-dimensional projection
QUERIES, NEIGHBOURS = 10, 4  # A.3: one image of each of ten classes, its four nearest
LOSS_MAPS, LOSS_BATCH = 6, 128  # images shown, and those among which each is told
BLOCK = 10  # pixels that an occlusion hides at least (A.6), where an image has room for them


def draw(folder: Path, checkpoints: Mapping[str, str], settings: Evaluation, rows: Sequence[Row]) -> dict[str, Path]:
    """Every figure that there are data for -> its name and its PNG.

    Args:
        folder: where they are saved.
        checkpoints: name in the rows -> checkpoint.
        settings: of the evaluation.
        rows: what it measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = tables_as_figures(folder, rows)
    made |= seen_in_features(folder, checkpoints, settings)
    histories = {
        name: [record for record in read_history(run) if "loss" in record]
        for name, checkpoint in checkpoints.items()
        if (run := run_folder(checkpoint))
    }
    if any(histories.values()):
        made["training"] = plot_training(histories, folder / "training_curves.png")
    if settings.ablation:
        made["ablation"] = plot_ablation(read_ablation(settings.ablation), folder / "ablation.png")
    return made


def tables_as_figures(folder: Path, rows: Sequence[Row]) -> dict[str, Path]:
    """What the rows alone give: layers, few labels, information against accuracy."""
    made: dict[str, Path] = {}
    accuracies = [row for row in rows if row.metric == "accuracy" and not is_few_labels(row)]
    if accuracies:
        made["layers"] = plot_layers(accuracies, folder / "layers.png", accuracies[0].target)
    if any(is_few_labels(row) for row in rows):
        made["label_curves"] = plot_label_curves(rows, folder / "label_curves.png")
    nats = [row for row in rows if row.probe == "mine"]
    known = [row for row in accuracies if row.layer != RAW_PIXELS]
    if len(nats) > 1 and known:
        best = max(known, key=lambda row: row.value)
        up = [row for row in known if (row.layer, row.probe, row.target) == (best.layer, best.probe, best.target)]
        if {row.model for row in nats} & {row.model for row in up}:
            labels = "MINE between image and representation (nats)", f"{best.probe} accuracy of {best.layer} (%)"
            made["tradeoff"] = plot_tradeoff(nats, up, folder / "tradeoff.png", *labels)
    return made


def seen_in_features(folder: Path, checkpoints: Mapping[str, str], settings: Evaluation) -> dict[str, Path]:
    """What needs the checkpoints again: the projection, the neighbours, and where Deep InfoMax's loss is."""
    vectors: dict[str, Tensor] = {}
    splits: dict[int, Splits] = {}
    made: dict[str, Path] = {}
    for name, checkpoint in checkpoints.items():
        model = load_model(checkpoint, settings)
        side = model.config.image_size
        if side not in splits:
            splits[side] = load_splits(settings, side)
        test = splits[side].test
        layer = model.feature_layers[-1]
        options = {"precision": precision(settings.precision), "cache": settings.cache}
        vectors[name] = cached_features(model, test.pixels, [layer], **options)[layer]
        if "loss_maps" not in made and (maps := loss_maps(folder, checkpoint, test.pixels)):
            made["loss_maps"] = maps
    first = next(iter(splits.values()))
    labels = next((values for values in first.test.targets.values() if values.dim() == 1), None)
    if labels is not None:
        points = {name: project(values[:PROJECTED]) for name, values in vectors.items()}
        made["projection"] = plot_projection(points, labels[:PROJECTED], folder / "projection.png", first.class_names)
    made["neighbours"] = neighbours(folder, vectors, first.test.pixels, labels)
    return made


def neighbours(folder: Path, vectors: Mapping[str, Tensor], pixels: Tensor, labels: Tensor | None) -> Path:
    """A test image of each class, and its nearest test images by the L1 distance (A.3)."""
    if labels is None:
        queries = torch.arange(min(QUERIES, len(pixels)))
    else:
        queries = torch.stack([(labels == label).nonzero()[0, 0] for label in labels.unique()[:QUERIES]])
    count = min(NEIGHBOURS, len(pixels) - 1)
    found = {}
    for name, values in vectors.items():
        nearest = nearest_neighbours(values[queries], values, k=count + 1)
        # It is found first, or beside images that cannot be told from it: then the last one goes in its place.
        itself = nearest == queries.unsqueeze(1)  # (Q, count + 1)
        itself[:, -1] |= ~itself.any(dim=1)
        found[name] = pixels[nearest[~itself].view(len(queries), count)]
    return plot_neighbours(pixels[queries], found, folder / "neighbours.png")


def loss_maps(folder: Path, checkpoint: str, pixels: Tensor) -> Path | None:
    """Figure 13 of Deep InfoMax for a run of it with a local objective; None for any other checkpoint."""
    run = run_folder(checkpoint)
    model: Any = AutoModelForPreTraining.from_pretrained(run / "model") if run else None
    if not isinstance(model, DIMForPreTraining) or not model.config.beta or len(pixels) < 2:
        return None
    batch = pixels[:LOSS_BATCH]
    side = pixels.shape[-1]
    occlude = recipes.load("dim_occluded", side, block=min(BLOCK, side // 2))
    views = occlude(batch, sample_index=torch.arange(len(batch)))
    occluded, images = views["occluded_values"], to_unit_range(batch)
    seen, hidden = model.eval().location_losses(images), model.location_losses(images, occluded)
    count = min(LOSS_MAPS, len(batch))
    return plot_loss_maps(
        images[:count],
        seen[:count],
        folder / "loss_maps.png",
        occluded_images=occluded[:count],
        occluded_maps=hidden[:count],
    )
