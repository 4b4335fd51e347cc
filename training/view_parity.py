"""Do the batched views train as well as torchvision's, image by image? The same short run with both, seed by seed.

    python training/view_parity.py [data.dataset=path/to/cifar10] [epochs=4] [seeds=[0,1,2]]

Two SimCLR views without blur, a small encoder, kNN on held-out training images. Writes results.json and table.md into
model_cards/view_parity.
"""

import process  # noqa: F401 (before torch)

# isort: split
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torchvision import transforms as T
from torchvision.transforms import functional as TF

import command
from hf_infomax import InstDiscConfig, InstDiscForPreTraining, data
from hf_infomax.evaluation import Row, format_markdown, knn_accuracy, summarise, write_results
from recipe import DataRecipe, precision, read_settings

CARD = Path(__file__).parent.parent / "model_cards" / "view_parity"
CROP, JITTER = 0.2, 0.5  # of both


@dataclass
class Parity:
    data: DataRecipe = field(
        default_factory=lambda: DataRecipe(
            dataset="uoft-cs/cifar10", train_split="train[:30%]", eval_split="train[90%:]"
        )
    )
    backbone: str = "dim_dcgan"
    epochs: int = 4
    batch_size: int = 256
    learning_rate: float = 1e-3
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])


Views = Callable[[Tensor, Tensor, int], Tensor]


def batched_views(seed: int, size: int) -> Views:
    """The package's: (pixels, index, epoch) -> (B, 2, 3, H, W)."""
    views = data.recipes.load("simclr", size, seed=seed, crop=CROP, jitter=JITTER, blur=0.0)
    return lambda pixels, index, epoch: views(pixels, sample_index=index, epoch=epoch)["pixel_values"]


def torchvision_views(seed: int, size: int) -> Views:
    """The reference: torchvision's transforms of Pillow images, one at a time."""
    jitter = T.ColorJitter(0.8 * JITTER, 0.8 * JITTER, 0.8 * JITTER, 0.2 * JITTER)
    transform = T.Compose(
        [
            T.RandomResizedCrop(size, scale=(CROP, 1.0)),
            T.RandomHorizontalFlip(),
            T.RandomApply([jitter], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.ToTensor(),
        ]
    )

    def views(pixels: Tensor, index: Tensor, epoch: int) -> Tensor:
        images = [TF.to_pil_image(image) for image in pixels]
        return torch.stack([torch.stack([transform(image), transform(image)]) for image in images])

    return views


VIEWS = {"batched views": batched_views, "torchvision on Pillow": torchvision_views}


def split_images(settings: Parity, split: str, size: int = 32) -> tuple[Tensor, Tensor]:
    dataset = data.load_dataset(settings.data.dataset, split, config=settings.data.config)
    decoded = data.decode_images(dataset, data.find_image_column(dataset, settings.data.image_column), size)
    label = data.find_label_column(dataset, settings.data.label_column)
    return decoded.pixels, torch.tensor(dataset[label][:])[decoded.indices]


def batches(pixels: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(pixels))
    for index in order[: len(order) // batch_size * batch_size].split(batch_size):
        yield pixels[index], index


def train(
    settings: Parity, pixels: Tensor, make_views: Callable[[int, int], Views], seed: int
) -> InstDiscForPreTraining:
    torch.manual_seed(seed)
    config = InstDiscConfig(
        backbone=settings.backbone, negatives="batch", temperature=0.2, image_std=(0.25, 0.25, 0.25)
    )
    model = InstDiscForPreTraining(config).to(memory_format=torch.channels_last)
    views = make_views(seed, pixels.shape[-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, fused=True)
    for epoch in range(settings.epochs):
        for images, index in batches(pixels, settings.batch_size):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision("auto") == "bf16"):
                loss = model(views(images, index, epoch)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def features(model: InstDiscForPreTraining, pixels: Tensor) -> dict[str, Tensor]:
    parts = [model.layers(piece / 255) for piece in pixels.split(500)]
    return {layer: torch.cat([part[layer].flatten(1) for part in parts]) for layer in ("conv", "fc", "y")}


def measure(settings: Parity) -> list[Row]:
    pixels, labels = split_images(settings, settings.data.train_split)
    queries, query_labels = split_images(settings, settings.data.eval_split)
    rows = []
    for seed in settings.seeds:
        for name, make_views in VIEWS.items():
            started = time.perf_counter()
            model = train(settings, pixels, make_views, seed)
            seconds = time.perf_counter() - started
            bank, asked = features(model, pixels), features(model, queries)
            for layer, found in bank.items():
                value = knn_accuracy(asked[layer], query_labels, found, labels)
                names = ("knn", "label", Path(settings.data.dataset).name, settings.data.eval_split, "accuracy")
                rows.append(Row(name, layer, *names, value, seeds=(seed,)))
            scores = "  ".join(f"{row.layer} {row.value:.3f}" for row in rows[-len(bank) :])
            print(f"seed {seed}, {name}: {seconds:.0f} s, {scores}", flush=True)
    return rows


def verdicts(rows: list[Row]) -> str:
    """For each layer, how far the two lie apart, beside their spreads."""
    lines = ["| layer | batched - torchvision | standard error of the difference |", "|---|---|---|"]
    ours, theirs = VIEWS
    for layer in dict.fromkeys(row.layer for row in rows):
        one, other = (next(row for row in rows if (row.model, row.layer) == (name, layer)) for name in (ours, theirs))
        error = ((one.std or 0) ** 2 / len(one.seeds) + (other.std or 0) ** 2 / len(other.seeds)) ** 0.5
        lines.append(f"| {layer} | {100 * (one.value - other.value):+.2f} | {100 * error:.2f} |")
    return "\n".join(lines)


def run(arguments: list[str]) -> None:
    settings = read_settings(Parity, {}, arguments)
    rows = summarise(measure(settings))
    recorded = {**OmegaConf.to_container(OmegaConf.structured(settings)), "crop": CROP, "jitter": JITTER}
    recorded["data"]["dataset"] = Path(settings.data.dataset).name  # not its place on this machine
    write_results(CARD / "results.json", recorded, rows)
    table = f"{format_markdown(rows)}\n\n{verdicts(rows)}\n"
    (CARD / "table.md").write_text(table, encoding="utf-8")
    print(f"{table}\nsaved in {CARD}")


if __name__ == "__main__":
    sys.exit(command.run(run, __doc__, sys.argv[1:], needs_arguments=False))
