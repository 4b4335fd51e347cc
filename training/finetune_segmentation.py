"""Semantic segmentation from one view: a U-Net's decoder, trained on a frozen encoder (Contrastive Multiview Coding, 4.3.1, D.4).

    python training/finetune_segmentation.py CHECKPOINT [key=value ...]
    python training/finetune_segmentation.py outputs/cmc_scenes view=depth
    python training/finetune_segmentation.py outputs/cmc_scenes init=random                  (the paper's Random)
    python training/finetune_segmentation.py outputs/cmc_scenes init=random frozen=false     (its Supervised)

CHECKPOINT is a run's folder or its OUT/model, or a Hub id; init=random takes its configuration alone. Prints mean IoU and pixel
accuracy, adds them to results.json beside the checkpoint, and writes the network and a picture of some held-out images to
segmentation/ there. Dataset and columns come from the run's recipe unless given. On several GPUs: accelerate launch.
"""

import process  # noqa: F401 (before torch)

# isort: split
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import DataLoaderConfiguration, set_seed
from omegaconf import MISSING, OmegaConf
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import MultiStepLR
from torch.optim.swa_utils import update_bn
from tqdm.auto import tqdm

import command
import hf_infomax
from hf_infomax import data
from hf_infomax.data import recipes as view_recipes
from hf_infomax.downstream import (
    IGNORED,
    LabelMaps,
    UNet,
    compute_maps,
    count_pixels,
    plot_segmentations,
    segmentation_scores,
)
from hf_infomax.evaluation import Row, format_table, load_encoder, write_results
from hf_infomax.models.errors import choose, unknown_name
from measure import DataSettings, run_folder
from recipe import DataRecipe, precision, read_settings
from sources import decoded_dataset
from threads import Threads

NAMES = {
    ("pretrained", True): "trained",
    ("pretrained", False): "fine-tuned",
    ("random", True): "random init",
    ("random", False): "supervised",
}
FLIP = {"pixel_values": view_recipes.View(((data.augmentations.HorizontalFlip, {"probability": 0.5}),))}


@dataclass
class SegmentationData(DataSettings):
    label_column: str = "semantic"  # label maps
    columns: dict[str, str] = field(default_factory=dict)  # what the views that are columns hold: values, labels, ...


@dataclass
class Segmentation:
    checkpoint: str = MISSING
    data: SegmentationData = field(default_factory=SegmentationData)
    view: str | None = None  # None: the model's first
    init: str = "pretrained"  # or random
    settle: bool = False  # the batch norms of a random encoder: take their statistics from the training images first
    frozen: bool = True  # false: the encoder is trained with the decoder
    num_classes: int | None = None  # None: the largest label plus one
    ignore_index: int | None = None  # the label of pixels without a class
    epochs: int = 6  # a minute of one core for 2,000 images of 64x64; the paper trains for 200 and more
    batch_size: int = 16  # over all processes
    learning_rate: float = 1e-3  # D.4: Adam, beta 0.5 and 0.999, times 0.2 after 2/3, 4/5 and 14/15 of the training
    flip: bool = False  # half of the training images, with their labels
    cache_features: bool | None = None  # compute the maps once; None: of a frozen encoder, where memory allows
    precision: str = "auto"
    threads: int | None = None  # of a CPU, for runs equal to the last bit; None: as many as other processes leave free
    seed: int = 0  # of a random encoder, of the decoder, and of the batches
    name: str | None = None  # of the model in the rows; None: trained, fine-tuned, random init or supervised
    output: str | None = None  # a folder; None: beside the checkpoint from the command line, nowhere from `segment`


def load_settings(checkpoint: str, overrides: list[str]) -> Segmentation:
    """The run's dataset and columns, then the overrides."""
    folder = run_folder(checkpoint)
    base: dict[str, Any] = {"checkpoint": checkpoint, "output": str(folder or ".")}
    if folder:
        source = OmegaConf.load(folder / "recipe.yaml").data
        keys = ("dataset", "config", "image_column", "on_corrupt", "columns")
        base["data"] = {key: source[key] for key in keys if key in source}
    return read_settings(Segmentation, base, overrides)


@dataclass
class Task:
    """What is asked: the label maps, told from one view."""

    settings: Segmentation
    view: str
    image_size: int
    columns: dict[str, str]  # of a batch: the label map, and the view where it is one; by what they hold

    @classmethod
    def of(cls, settings: Segmentation, config: Any) -> "Task":
        view, source = settings.view or config.views[0], settings.data
        if view not in config.views:
            raise unknown_name("view", view, tuple(config.views))
        columns = {source.label_column: "labels"}
        if view in (config.columns or {}) and view not in columns:
            if view not in source.columns:
                raise hf_infomax.UsageError(
                    f"The view '{view}' is a column of the dataset: say what it holds, such as data.columns={{{view}: values}}."
                )
            columns[view] = source.columns[view]
        return cls(settings, view, config.image_size, columns)

    @property
    def labels(self) -> LabelMaps:
        return LabelMaps(self.settings.data.label_column, self.settings.ignore_index)

    def split(self, name: str) -> data.DecodedDataset:
        """The images of a split, with their label maps and the view."""
        source = self.settings.data
        split = data.load_dataset(source.dataset, name, config=source.config)
        column = data.find_image_column(split, source.image_column)
        self.labels.require(split, column, self.image_size, source.on_corrupt)
        recipe = DataRecipe(dataset=source.dataset, columns=self.columns, on_corrupt=source.on_corrupt)
        return decoded_dataset(split, column, self.image_size, recipe)

    def views(self, flip: bool = False) -> data.Views:
        recipe = FLIP if flip else "dim"  # "dim": as they are
        return view_recipes.load(recipe, self.image_size, seed=self.settings.seed, columns=self.columns)


def build_encoder(settings: Segmentation) -> torch.nn.Module:
    """The checkpoint's model, or one of its configuration with fresh weights."""
    choose("init", settings.init, {"pretrained": None, "random": None})
    model = load_encoder(settings.checkpoint)
    set_seed(settings.seed)
    return type(model)(model.config) if settings.init == "random" else model


def settle_norms(unet: UNet, images: data.DecodedDataset, task: Task, device: torch.device, count: int = 512) -> None:
    """Give a frozen encoder's batch norms the statistics of some training images, as those of a trained one are.

    A fresh encoder has mean 0 and variance 1 there, which is a handicap of its own, apart from its weights.
    """
    views, rows = task.views(), torch.randperm(len(images))[:count].split(64)
    batches = ({key: value.to(device) for key, value in images.__getitems__(part.tolist()).items()} for part in rows)
    shown = (unet.views(names=[task.view], **views(**batch))[task.view] for batch in batches)
    update_bn(shown, unet.encoder)


def fixed_maps(
    unet: UNet, images: data.DecodedDataset, task: Task, accelerator: Accelerator
) -> dict[str, Tensor] | None:
    """All maps of a frozen encoder, where they stay the same and memory allows; else None.

    Raises:
        UsageError: maps are asked for that change from epoch to epoch.
    """
    settings = task.settings
    fixed = settings.frozen and not settings.flip
    if settings.cache_features and not fixed:
        raise hf_infomax.UsageError("cache_features=true needs frozen=true and flip=false: other maps change.")
    if settings.cache_features is False or not fixed:
        return None
    most = None if settings.cache_features else psutil.virtual_memory().available / 2 / accelerator.num_processes
    return compute_maps(unet, images, task.views(), most_bytes=most, autocast=accelerator.autocast)


def fit(unet: UNet, images: data.DecodedDataset, task: Task, accelerator: Accelerator) -> None:
    """Train the decoder, and the encoder unless it is frozen, by the cross-entropy of the pixels that count."""
    settings, labels_of = task.settings, task.labels
    maps = fixed_maps(unet, images, task, accelerator)
    network, images = (
        (unet.decoder, data.DecodedDataset(images.pixels, images.columns | maps)) if maps else (unet, images)
    )
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, settings.learning_rate, betas=(0.5, 0.999), fused=True)
    loader = data.data_loader(images, min(settings.batch_size, len(images)), shuffle=True, drop_last=True)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    steps = settings.epochs * len(loader)
    decay = MultiStepLR(optimizer, [round(part * steps) for part in (2 / 3, 4 / 5, 14 / 15)], gamma=0.2)
    views, threads = task.views(settings.flip), Threads(settings.threads)
    network.train()
    with tqdm(total=steps, desc=task.view, unit="step", leave=False, disable=not accelerator.is_main_process) as bar:
        for epoch in range(settings.epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                if maps:
                    labels = labels_of(batch[labels_of.column])
                    logits = network([batch[name] for name in maps], labels.shape[-2:])
                else:
                    shown = views(**batch, epoch=epoch)
                    labels = labels_of(shown[labels_of.column])
                    logits = network(**shown)
                # Not the library's mean, which is NaN for a batch of ignored pixels alone.
                total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
                loss = total / (labels != IGNORED).sum().clamp(min=1)
                accelerator.backward(loss)
                optimizer.step()
                decay.step()
                optimizer.zero_grad()
                threads.fit()
                bar.update()
            bar.set_postfix_str(f"epoch {epoch + 1}, loss {loss.item():.3f}")


def predict(
    unet: UNet, images: data.DecodedDataset, rows: Sequence[int], task: Task, accelerator: Accelerator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of predicted and true classes, (B, H, W) each."""
    views = task.views()
    unet.eval()
    for part in torch.tensor(rows).split(128):
        batch = images.__getitems__(part.tolist())
        shown = views(**{name: values.to(accelerator.device) for name, values in batch.items()})
        with accelerator.autocast(), torch.no_grad():
            logits = unet(**shown)
        yield logits.argmax(dim=1), task.labels(shown[task.labels.column])


def score(unet: UNet, images: data.DecodedDataset, num_classes: int, task: Task, accelerator: Accelerator) -> list[Row]:
    """Mean IoU and pixel accuracy over a split, of which every process sees a part."""
    settings = task.settings
    counts = torch.zeros(4, num_classes, dtype=torch.int64)
    rows = range(accelerator.process_index, len(images), accelerator.num_processes)
    for predicted, labels in predict(unet, images, rows, task, accelerator):
        counts += count_pixels(predicted.cpu(), labels.cpu(), num_classes, IGNORED)
    scores = segmentation_scores(accelerator.reduce(counts.to(accelerator.device)).cpu())
    measured = {"dataset": settings.data.dataset, "split": settings.data.eval_split, "target": task.labels.column}
    name = settings.name or NAMES[settings.init, settings.frozen]
    return [
        Row(name, task.view, "unet", metric=metric, value=getattr(scores, metric), seeds=(settings.seed,), **measured)
        for metric in ("mean_iou", "pixel_accuracy")
    ]


def segment(settings: Segmentation) -> list[Row]:
    """Train and measure one segmenter -> its mean IoU and its pixel accuracy.

    Raises:
        UsageError: the checkpoint, the data or a setting has something that the user can mend.
    """
    started = time.perf_counter()
    accelerator = Accelerator(
        mixed_precision=precision(settings.precision),
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True),
        # What follows an encoder's last map has no part in the loss.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=not settings.frozen)],
    )
    if settings.batch_size % accelerator.num_processes:
        raise hf_infomax.UsageError(f"Use a batch_size that {accelerator.num_processes} processes share evenly.")
    model = build_encoder(settings)
    task = Task.of(settings, model.config)
    with accelerator.main_process_first():  # the others find what the first one cached
        train, held_out = (task.split(name) for name in (settings.data.train_split, settings.data.eval_split))
    maps = [images.columns[task.labels.column] for images in (train, held_out)]
    num_classes = task.labels.count_classes(maps, settings.num_classes)
    set_seed(settings.seed)  # the same decoder to begin with, whatever the encoder
    unet = UNet(model, task.view, num_classes, settings.frozen)
    unet.to(accelerator.device, memory_format=torch.channels_last)
    if settings.settle:
        settle_norms(unet, train, task, accelerator.device)
    fit(unet, train, task, accelerator)
    rows = score(unet, held_out, num_classes, task, accelerator)
    if settings.output and accelerator.is_main_process:
        save(unet, held_out, task, rows, time.perf_counter() - started, accelerator)
    return rows


def save(
    unet: UNet, images: data.DecodedDataset, task: Task, rows: list[Row], seconds: float, accelerator: Accelerator
) -> None:
    """Add the rows to results.json, and write the network and a picture of it to segmentation/MODEL-VIEW."""
    out, settings = Path(task.settings.output), task.settings
    name = f"{rows[0].model}-{task.view}".replace(" ", "-").replace("/", "-")
    unet.save_pretrained(out / "segmentation" / name)
    few = range(min(6, len(images)))
    predicted, labels = next(predict(unet, images, few, task, accelerator))
    title = f"{rows[0].model}, from {task.view}: mean IoU {rows[0].value:.3f}, pixel accuracy {rows[1].value:.3f}"
    path = out / "segmentation" / f"{name}.png"
    plot_segmentations(images.pixels[few.start : few.stop], labels, predicted, unet.num_classes, path, title)
    run = OmegaConf.to_container(OmegaConf.structured(settings))
    run |= {"num_classes": unet.num_classes, "seconds": round(seconds, 1)}
    write_results(out / "results.json", {f"segmentation {name}": run}, rows)


def finetune(arguments: list[str]) -> None:
    """Train a segmenter, save it and its rows, print the table."""
    settings = load_settings(arguments[0], arguments[1:])
    rows = segment(settings)
    if PartialState().is_main_process:
        place = f"{settings.data.dataset}, {settings.data.eval_split}"
        print(f"{settings.checkpoint} on {place}\n\n{format_table(rows)}\n\nsaved in {settings.output}")


def main(arguments: list[str]) -> int:
    """The command; see `command.run` for its exit status."""
    return command.run(finetune, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
