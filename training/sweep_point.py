"""One point of a sweep: train at one value of a strength with one seed, measure what the views share and what was learned.

    python training/sweep_point.py FILE

FILE is the point as `Point.write` wrote it: what examples/view_sweep.py starts where it has several points at a time.
"""

import process  # noqa: F401 (before torch)

# isort: split
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import AutoModelForPreTraining

import command
from hf_infomax import UsageError, data
from hf_infomax.data import recipes as view_recipes
from hf_infomax.evaluation import Row, augmentation_information, load_encoder, view_information
from measure import DataSettings, Evaluation, measure, subset
from pretrain import train
from recipe import Recipe, model_config
from sources import decoded_dataset, load_split, view_options
from strengths import STRENGTHS, slid_recipe

EVAL_IMAGES = 10_000  # at most, of the held-out split
# What may differ between the parts of one sweep, for it changes no result, or not what is learned.
FREE = ("output_dir", "resume", "train.threads", "train.log_every", "train.trackers", "train.keep_checkpoints")


@dataclass(frozen=True)
class Point:
    """One value of a strength with one seed."""

    strength: str
    value: str
    seed: int
    recipe: str
    folder: str  # of the sweep's runs
    overrides: list[str] = field(default_factory=list)
    images: int = 4096  # among which I_NCE is measured, at most
    targets: list[str] = field(default_factory=list)  # columns to ask for beside the classes

    @property
    def name(self) -> str:
        return STRENGTHS[self.strength].named(self.value)

    @property
    def out(self) -> Path:
        return Path(self.folder) / f"{self.value}-{self.seed}"

    def load(self) -> Recipe:
        """Its recipe."""
        settings = [*self.overrides, f"output_dir={self.out}", f"train.seed={self.seed}", "resume=true"]
        return slid_recipe(self.strength, self.value, self.recipe, settings)

    def views(self) -> Any:
        """Its views of images without further columns; a strength out of range is found here."""
        recipe = self.load()
        return view_recipes.load(image_size=model_config(recipe).image_size, **view_options(recipe) | {"columns": {}})

    def write(self) -> Path:
        """A file that `main` reads."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "point.json"
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        return path


def require_same(point: Point) -> None:
    """Refuse to go on with a run, or to keep a point, of other settings.

    Raises:
        UsageError: the run in the point's folder was made by another recipe.
    """
    path = point.out / "recipe.yaml"
    if not path.is_file():
        return
    made = (OmegaConf.structured(point.load()), OmegaConf.load(path))
    now, before = (dict(leaves(OmegaConf.to_container(recipe))) for recipe in made)
    for key in sorted(now.keys() | before.keys()):
        if key not in FREE and now.get(key) != before.get(key):
            raise UsageError(
                f"'{point.out}' was trained with {key}={before.get(key)}, and now it is {now.get(key)}: give the same settings, "
                "or another folder for the results with out=DIR, which has runs of its own."
            )


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested dict as ("section.key", value)."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", Path(value).name if prefix + key == "data.dataset" else value


def finish(point: Point) -> None:
    """Train the point, go on with it, or leave its run alone if it is finished; measure it, and note it in points.jsonl."""
    require_same(point)
    recipe, started = point.load(), time.perf_counter()
    label = held_out_label(recipe)
    if not (point.out / "model").is_dir():
        train(recipe)
    trained = time.perf_counter()
    rows = [information_row(point, recipe), *known_rows(point, recipe, point.out, label)]
    rows = [replace(row, model=point.name, dataset=Path(row.dataset).name) for row in rows]
    entry = {
        "value": point.value,
        "seed": point.seed,
        "images": point.images,
        "held_out": min(len(load_split(recipe, recipe.data.eval_split)), EVAL_IMAGES),
        "seconds": {"training": round(trained - started, 1), "measuring": round(time.perf_counter() - trained, 1)},
        "rows": [asdict(row) for row in rows],
    }
    note(point, entry)


def note(point: Point, entry: dict[str, Any]) -> None:
    """One more line in the points.jsonl of the sweep; the last one may have been cut short."""
    path = Path(point.folder) / "points.jsonl"
    ended = not path.is_file() or path.read_text(encoding="utf-8")[-1:] in ("", "\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if ended else "\n") + json.dumps(entry, ensure_ascii=False) + "\n")


def held_out_label(recipe: Recipe) -> str:
    """The column of classes of the held-out split.

    Raises:
        UsageError: nothing is held out, or it has no labels.
    """
    if recipe.data.streaming or not recipe.data.eval_split:
        raise UsageError(
            "A sweep measures images that are held out of a dataset on disk: set data.streaming=false, and "
            "data.train_split=train[:90%] data.eval_split=train[90%:]."
        )
    label = data.find_label_column(load_split(recipe, recipe.data.eval_split), recipe.data.label_column)
    if label is None:
        raise UsageError(f"'{recipe.data.eval_split}' has no column of classes to ask for: set data.label_column.")
    return label


def information_row(point: Point, recipe: Recipe) -> Row:
    """I_NCE between the views of held-out images, in nats."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForPreTraining.from_pretrained(point.out / "model").to(device)
    splits = [
        plain_images(recipe, split, point.images, model.config.image_size)
        for split in (recipe.data.train_split, recipe.data.eval_split)
    ]
    if len(model.config.views) > 1:
        value = next(iter(view_information(load_encoder(str(point.out)).to(device), *splits, point.images).values()))
    else:
        value = augmentation_information(model, point.views(), *splits, point.images)
    common = {"dataset": recipe.data.dataset, "split": recipe.data.eval_split, "seeds": (point.seed,)}
    layer = model.model.feature_layers[-1]
    return Row("trained", layer, "infonce", "the other view", metric="nats", value=value, **common)


def plain_images(recipe: Recipe, split: str, count: int, image_size: int) -> torch.Tensor | data.VariableImages:
    """Some images of a split, decoded as they are trained on."""
    settings = replace(recipe.data, columns={}, frames={}, flow={})
    rows = subset(load_split(recipe, split), count)
    return decoded_dataset(rows, data.find_image_column(rows, settings.image_column), image_size, settings).pixels


def known_rows(point: Point, recipe: Recipe, checkpoint: Path, label: str) -> list[Row]:
    """What the representation that users receive knows of held-out images, by kNN and a linear probe."""
    keys = ("dataset", "config", "train_split", "eval_split", "image_column", "on_corrupt")
    settings = Evaluation(
        data=DataSettings(**{key: getattr(recipe.data, key) for key in keys}),
        targets=list(dict.fromkeys([label, *point.targets])),
        layers=[load_encoder(str(checkpoint)).feature_layers[-1]],
        measures=[],
        baselines=False,
        eval_images=EVAL_IMAGES,
        seed=point.seed,
    )
    return measure(str(checkpoint), settings)


def untrained_rows(point: Point) -> list[Row]:
    """The same of the point's encoder before training; it lies beside the runs."""
    recipe = point.load()
    encoder, folder = load_encoder(str(point.out)), Path(point.folder) / "untrained"
    torch.manual_seed(point.seed)
    type(encoder)(encoder.config).save_pretrained(folder / "model")
    rows = known_rows(point, recipe, folder, held_out_label(recipe))
    return [replace(row, model="untrained", dataset=Path(row.dataset).name) for row in rows]


def main(arguments: list[str]) -> int:
    """The command; see `command.run` for its exit status."""

    def work(given: list[str]) -> None:
        finish(Point(**json.loads(Path(given[0]).read_text(encoding="utf-8"))))

    return command.run(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
