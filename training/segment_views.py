"""How many views: pretrain on more and more of them, and tell label maps from the frozen encoder of one (CMC, Figure 4, Table 3).

    python training/segment_views.py STUDY [key=value ...]
    python training/segment_views.py scenes_cpu
    python training/segment_views.py camvid_cpu data.dataset=path/to/camvid

STUDY is a file of training/segmentations. Every run is one of pretrain.py, followed by those of finetune_segmentation.py, under
outputs/segment_STUDY; what is finished is not repeated, so the same command continues where it stopped. The overrides are of the
recipe. Writes model_cards/segment_STUDY/results.json, table.md and comparison.png.

Beside them: *random*, a frozen encoder never trained (of the core view alone); the same with batch norms that know the data's
statistics, which is the fairer floor; and *supervised*, trained with the decoder from the start.
"""

import process  # noqa: F401 (before torch)

# isort: split
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import OmegaConf

import command
from compare import CARDS, slug, trained_run
from finetune_segmentation import load_settings, segment
from hf_infomax.evaluation import (
    Row,
    format_markdown,
    format_table,
    plot_comparison,
    read_results,
    summarise,
    write_results,
)
from hf_infomax.models.errors import unknown_name

STUDIES = Path(__file__).parent / "segmentations"

BASELINES = {
    "random": ["init=random"],
    "random, norms settled": ["init=random", "settle=true"],
    "supervised": ["init=random", "frozen=false"],
}


@dataclass
class Study:
    """A study as its YAML file spells it."""

    recipe: str
    overrides: list[str]  # of every pretraining run
    seeds: list[int]
    runs: dict[str, list[str]]  # name -> overrides of the recipe, from few views to many
    core: str  # the view that every run is asked by
    others: list[str]  # views that the last run is asked by as well, with the first seed alone
    segmentation: list[str] = field(default_factory=list)  # overrides of finetune_segmentation.py


def load_study(name: str) -> Study:
    path = STUDIES / f"{Path(name).stem}.yaml"
    if not path.is_file():
        raise unknown_name("study", name, sorted(file.stem for file in STUDIES.glob("*.yaml")))
    return Study(**OmegaConf.to_container(OmegaConf.load(path)))


def asked(study: Study, out: Path, name: str, view: str, seed: int, overrides: list[str]) -> list[Row]:
    """Train and measure one segmenter over the encoder in `out`, or read what it left."""
    done = out / f"{slug(name)}-{slug(view)}.json"
    if not done.is_file():
        settings = [*study.segmentation, f"view={view}", f"seed={seed}", f"name={name!r}", "output=null", *overrides]
        print(f"--- {name}, {view}, seed {seed}", flush=True)
        write_results(done, {"overrides": overrides}, segment(load_settings(str(out), settings)))
    return [replace(row, dataset=Path(row.dataset).name) for row in read_results(done).rows]


def finished_seed(study: Study, folder: Path, seed: int, overrides: list[str]) -> list[Row]:
    """All rows of a seed."""
    rows: list[Row] = []
    for name, own in study.runs.items():
        out = folder / f"{slug(name)}-{seed}"
        print(f"--- {name}, seed {seed}", flush=True)
        trained_run(study.recipe, [*study.overrides, *own, *overrides], out, seed)
        rows += asked(study, out, name, study.core, seed, [])
    views = [study.core, *(study.others if seed == study.seeds[0] else [])]
    for view in views[1:]:
        rows += asked(study, out, name, view, seed, [])
    for view in views:
        for baseline, settings in BASELINES.items():
            if view == study.core or baseline != "random":
                rows += asked(study, out, baseline, view, seed, settings)
    return rows


def run(arguments: list[str]) -> None:
    """Finish every run of a study and publish it."""
    study, name = load_study(arguments[0]), f"segment_{Path(arguments[0]).stem}"
    rows = [row for seed in study.seeds for row in finished_seed(study, Path("outputs") / name, seed, arguments[1:])]
    rows = summarise(rows)
    card = CARDS / name
    write_results(card / "results.json", {"study": vars(study)}, rows)
    (card / "table.md").write_text(format_markdown(rows) + "\n", encoding="utf-8")
    plot_comparison(rows, card / "comparison.png")
    print(f"{format_table(rows)}\n\nsaved in {card}")


def main(arguments: list[str]) -> int:
    """The command; see `command.run` for its exit status."""
    return command.run(run, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
