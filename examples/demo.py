"""The demo: two methods on the same images learn different things, because their views share different things.

    make demo
    python examples/demo.py [output_dir=outputs/demo] [card=FOLDER] [key=value of both recipes ...]

Trains Deep InfoMax and Contrastive Multiview Coding {L, ab} on the embedded colour digits, asks both what they know (the digit,
its colours, its place, its size) beside random initialisation and raw pixels, and writes report.html. card=FOLDER copies results
and the figures there, without the models: model_cards/colour_digits is made so.
"""

import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForPreTraining

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "training"))  # the scripts are neighbours, not a package

import command  # noqa: E402
from hf_infomax import data  # noqa: E402
from hf_infomax.evaluation import (  # noqa: E402
    Code,
    LabelledImages,
    Picture,
    ResultsTable,
    Row,
    Section,
    Text,
    evaluate_models,
    extract_features,
    format_table,
    labelled_images,
    nearest_neighbours,
    plot_heatmap,
    plot_knn,
    plot_loss_maps,
    plot_neighbours,
    plot_training,
    read_results,
    tabulate,
    write_report,
    write_results,
)
from metrics import read_history  # noqa: E402
from pretrain import train  # noqa: E402
from recipe import load_recipe, precision  # noqa: E402

DATASET = "hf_infomax/colour_digits"
RECIPES = {"DIM(L)": "dim_colour_digits_cpu", "CMC {L, ab}": "cmc_colour_digits_cpu"}
#: What is asked -> the column of the table.
TARGETS = {
    "label": "digit",
    "foreground": "digit colour",
    "background": "background",
    "x+y": "position",
    "size": "size",
}
LAYERS = ("conv", "fc", "y")
TRAIN_IMAGES, TEST_IMAGES = 20_000, 4000  # all of the training images vote in the kNN
PROBE_IMAGES = 5000  # on so many of them the linear probes are fitted


def take(arguments: list[str], key: str) -> str | None:
    """Remove key=value from the arguments -> the value, or None."""
    for argument in arguments:
        if argument.startswith(f"{key}="):
            arguments.remove(argument)
            return argument.partition("=")[2]
    return None


def fresh_folder(base: Path) -> Path:
    """That folder, numbered where it exists already: no earlier run is touched."""
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def what_they_know(models: dict[str, torch.nn.Module | None]) -> tuple[list[Row], LabelledImages, LabelledImages]:
    """Every model's rows, and the images on which they were measured; probes are fitted on a part of the training split."""
    train_images, test_images = (
        labelled_images(data.load_dataset(DATASET, split), 32, list(TARGETS))
        for split in (f"train[:{TRAIN_IMAGES}]", f"test[:{TEST_IMAGES}]")
    )
    rows = []
    measured = evaluate_models(
        models, train_images, test_images, DATASET, "test", LAYERS, precision("auto"), probe_images=PROBE_IMAGES
    )
    for row in measured:
        rows.append(Row(**{**vars(row), "target": TARGETS[row.target]}))
    return rows, train_images, test_images


def picture_neighbours(
    models: dict[str, torch.nn.Module], bank: LabelledImages, test: LabelledImages, path: Path
) -> Path:
    """One test image of each of six digits, and its four nearest training images in each representation (L1, layer fc)."""
    queries = torch.stack([(test.targets["label"] == digit).nonzero()[digit, 0] for digit in (0, 2, 3, 5, 7, 8)])
    found = {}
    for name, model in models.items():
        features = [
            extract_features(model, images, ["fc"], progress=False)["fc"]
            for images in (test.pixels[queries], bank.pixels)
        ]
        found[name] = bank.pixels[nearest_neighbours(*features, k=4, distance="l1")]
    return plot_neighbours(test.pixels[queries], found, path)


def picture_loss_maps(dim: torch.nn.Module, test: LabelledImages, path: Path) -> Path:
    """Where DIM's representation does not know the image: the InfoNCE loss at each location."""
    images = test.pixels[:64].float() / 255
    return plot_loss_maps(test.pixels[:8], dim.eval().location_losses(images)[:8], path)


def picture_table(rows: list[Row], path: Path) -> Path:
    table = tabulate(rows)
    names = [f"{model}, {layer}" for model, layer in table.lines]
    columns = [f"{heading[1]}\n{heading[0]}\n{heading[-1]}" for heading in table.headings]
    return plot_heatmap(names, columns, table.values(), path, "What each representation knows, held-out images")


def report(out: Path, rows: list[Row], figures: dict[str, Path], load: str, seconds: float) -> Path:
    """OUT/report.html: the papers' story in the order in which a reader asks."""
    sections = [
        Section(
            "What each representation knows",
            [
                Text(
                    "L and ab of one image share only the shape, so CMC learns the digit, and its vectors fc and y keep less of "
                    "the colours. What all patches of one image share is its colours, so Deep InfoMax's vectors keep those. "
                    "The maps, conv, still hold most of everything. Compare each with its untrained self."
                ),
                Picture(
                    figures["table"],
                    "Held-out images; each column has its own scale.",
                    "The table below as a heat map.",
                ),
                ResultsTable(
                    rows, "kNN and logistic regression in per cent, linear regression as R2; the best is marked."
                ),
            ],
        ),
        Section(
            "Neighbours",
            [
                Picture(
                    figures["neighbours"],
                    "A test image and its four nearest training images by L1 distance, as in Deep InfoMax, Figure 7.",
                    "Rows of digits: DIM's neighbours share colours, CMC's share the digit.",
                )
            ],
        ),
        Section(
            "While training",
            [
                Picture(
                    figures["training"],
                    "Loss, and the lower bound of the mutual information.",
                    "Two curves for each method.",
                ),
                Picture(
                    figures["knn"],
                    "kNN accuracy of the digit on held-out training images.",
                    "One curve for each layer.",
                ),
            ],
        ),
        Section(
            "Where Deep InfoMax does not know the image",
            [
                Picture(
                    figures["loss_maps"],
                    "The InfoNCE loss at each location of the local map, as in Deep InfoMax, Figure 13.",
                    "Digits beside heat maps of the loss.",
                )
            ],
        ),
        Section("Load an encoder", [Code(load)]),
    ]
    facts = {
        "Dataset": DATASET,
        "Training": f"{seconds:.0f} s",
        "Probes": f"{PROBE_IMAGES:,} training, {TEST_IMAGES:,} test images",
    }
    summary = "Deep InfoMax and Contrastive Multiview Coding on the same images."
    return write_report(out / "report.html", "Which views share what decides what is learned", sections, summary, facts)


def train_both(out: Path, overrides: list[str]) -> dict[str, Path]:
    """Name -> the folder of its finished run."""
    return {
        name: train(load_recipe(recipe, [*overrides, f"output_dir={out / recipe.split('_')[0]}"]))
        for name, recipe in RECIPES.items()
    }


def with_baselines(pretrained: dict[str, torch.nn.Module]) -> dict[str, torch.nn.Module | None]:
    """The trained models, the same encoders at random initialisation, and None for the raw pixels."""
    torch.manual_seed(0)
    untrained = {f"{name}, untrained": type(model.model)(model.config) for name, model in pretrained.items()}
    return {**pretrained, **untrained, "raw pixels": None}


def demo(arguments: list[str]) -> None:
    """Train, ask, draw, report."""
    overrides = list(arguments)
    out, card = fresh_folder(Path(take(overrides, "output_dir") or "outputs/demo")), take(overrides, "card")
    folders = train_both(out, overrides)
    pretrained = {name: AutoModelForPreTraining.from_pretrained(folder / "model") for name, folder in folders.items()}
    rows, bank, test = what_they_know(with_baselines(pretrained))
    runs = {name: read_results(folder / "results.json").run for name, folder in folders.items()}
    write_results(out / "results.json", runs, rows)

    histories = {name: read_history(folder) for name, folder in folders.items()}
    steps = {name: [record for record in history if "loss" in record] for name, history in histories.items()}
    knn = {
        name: [{"epoch": r["epoch"], **r["knn"]} for r in history if "knn" in r] for name, history in histories.items()
    }
    figures = {
        "table": picture_table(rows, out / "heatmap.png"),
        "neighbours": picture_neighbours(pretrained, bank, test, out / "neighbours.png"),
        "training": plot_training(steps, out / "training.png"),
        "knn": plot_knn(knn, out / "knn.png", target="digit", chance=0.1),
        "loss_maps": picture_loss_maps(pretrained["DIM(L)"], test, out / "loss_maps.png"),
    }
    if card:
        Path(card).mkdir(parents=True, exist_ok=True)
        for path in (*figures.values(), out / "results.json"):
            shutil.copy(path, card)
    load = (
        "import hf_infomax\nfrom transformers import AutoModel\n"
        f"model = AutoModel.from_pretrained({str(folders['CMC {L, ab}'] / 'model')!r})"
    )
    page = report(out, rows, figures, load, seconds=sum(run["seconds"] for run in runs.values()))
    indented = load.replace("\n", "\n    ")
    print(f"\nWhat each representation knows, on held-out images\n\n{format_table(rows)}\n")
    print(f"Report: {page}\nModels: " + ", ".join(str(folder / "model") for folder in folders.values()))
    print(f"To load one:\n\n    {indented}\n")


def main(arguments: list[str]) -> int:
    """The command; see `command.run` for its exit status."""
    return command.run(demo, __doc__, arguments, needs_arguments=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
