"""Run a comparison: several settings, several seeds, one table, and a verdict for each question.

    python training/compare.py COMPARISON [key=value ...]
    python training/compare.py cifar10_cpu data.dataset=path/to/cifar10

COMPARISON is a file of training/comparisons. Every run is an ordinary run of pretrain.py under outputs/NAME/RUN-SEED; a run that is
finished is not repeated and one that was cut short goes on, so the same command continues where it stopped. The overrides apply to
all runs. Writes model_cards/NAME/results.json, table.md and figures; a question whose spreads overlap is answered "undecided".
"""

import process  # noqa: F401 (before torch)

# isort: split
import math
import sys
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

import command
from hf_infomax.evaluation import (
    Row,
    format_markdown,
    format_table,
    plot_comparison,
    plot_tradeoff,
    read_results,
    summarise,
    tabulate,
    write_results,
)
from hf_infomax.evaluation.table import PERCENT
from hf_infomax.models.errors import UsageError, unknown_name
from measure import DataSettings, Evaluation, measure
from metrics import read_history
from pretrain import train
from recipe import Recipe, load_recipe

HERE = Path(__file__).parent
COMPARISONS = HERE / "comparisons"
CARDS = HERE.parent / "model_cards"


@dataclass
class Comparison:
    """A comparison as its YAML file spells it."""

    recipe: str  # of the runs that name no other
    overrides: list[str]  # of every run
    seeds: list[int]
    runs: dict[str, dict[str, Any]]  # name -> {base (another run), recipe, overrides, seeds}, all optional
    baselines: list[str]  # the runs whose untrained encoder, and raw pixels, are measured as well
    evaluation: dict[str, Any]  # settings of evaluate.py
    questions: list[list[str]] = field(default_factory=list)  # [one run, another]
    # what a paper reports: {table, probe and layer of ours (None: the last), metric, values: {run: as the paper prints it}}
    paper: list[dict[str, Any]] = field(default_factory=list)


def load_comparison(name: str) -> Comparison:
    path = COMPARISONS / f"{Path(name).stem}.yaml"
    if not path.is_file():
        raise unknown_name("comparison", name, sorted(file.stem for file in COMPARISONS.glob("*.yaml")))
    comparison = Comparison(**OmegaConf.to_container(OmegaConf.load(path)))
    names = {slug(run): run for run in comparison.runs}
    for run in comparison.runs:
        if names[slug(run)] != run:
            raise UsageError(
                f"The runs '{run}' and '{names[slug(run)]}' of {path.name} would share a folder: rename one of them."
            )
    return comparison


def slug(name: str) -> str:
    """A run's name as a folder's; BALL+ is not BALL."""
    kept = "".join(character.lower() if character.isalnum() else "-" for character in name.replace("+", " plus"))
    return "-".join(filter(None, kept.split("-")))


def trained_run(recipe: str, settings: list[str], out: Path, seed: int) -> Recipe:
    """Train a run, go on with it, or leave it alone if it is finished -> its recipe."""
    loaded = load_recipe(recipe, [*settings, f"output_dir={out}", f"train.seed={seed}", "resume=true"])
    if not (out / "model").is_dir():
        train(loaded)
    return loaded


def finished_run(comparison: Comparison, name: str, run: str, seed: int, overrides: list[str]) -> list[Row]:
    """Train and evaluate one run, or read what it left: its rows under its name, with its seed."""
    out = Path("outputs") / name / f"{slug(run)}-{seed}"
    done = out / "evaluation.json"
    if not done.is_file():
        own = comparison.runs[run]
        base = comparison.runs[own["base"]] if "base" in own else {}
        settings = [*comparison.overrides, *base.get("overrides", []), *own.get("overrides", []), *overrides]
        recipe = trained_run((base | own).get("recipe", comparison.recipe), settings, out, seed)
        source = DataSettings(dataset=recipe.data.dataset, config=recipe.data.config)
        evaluation = Evaluation(data=source, seed=seed, baselines=run in comparison.baselines, **comparison.evaluation)
        seconds = read_results(out / "results.json").run["seconds"]
        write_results(done, {"run": run, "seed": seed, "seconds": seconds}, measure(str(out), evaluation))
    names = {"trained": run, "random init": f"{run}, untrained"}
    rows = [replace(row, model=names.get(row.model, row.model)) for row in read_results(done).rows]
    if len(comparison.runs[run].get("seeds", comparison.seeds)) == 1:
        return rows  # with the spread over the probes' own seeds
    return [replace(row, seeds=(seed,), std=None) for row in rows]  # the spread will be that over runs


def epoch_jump(out: Path) -> float | None:
    """How much more the loss rises from the last to the first record across an epoch's end than from record to record within one.

    Zero where the epochs leave no trace; None for a run of one epoch. In the units of the loss.
    """
    records = [record for record in read_history(out) if "loss" in record]
    moves: dict[bool, list[float]] = {False: [], True: []}
    for before, after in pairwise(records):
        moves[math.ceil(before["epoch"]) < math.ceil(after["epoch"])].append(after["loss"] - before["loss"])
    if not moves[True] or not moves[False]:
        return None
    return round(fmean(moves[True]) - fmean(moves[False]), 3)


def answer(rows: list[Row], one: str, other: str, probe: str, layer: str) -> str:
    """One line: which of two runs is better at a layer, by how much, or "undecided" where mean +- std overlap."""
    pair = []
    for run in (one, other):
        found = [row for row in rows if (row.model, row.probe, row.layer) == (run, probe, layer)]
        if not found:
            return ""
        pair.append(found[0])
    low, high = sorted(pair, key=lambda row: row.value)
    scores = " against ".join(map(per_cent, pair))
    if low.std is None or high.std is None:
        verdict = "undecided (one seed)"
    else:
        verdict = f"**{high.model}**" if high.value - high.std > low.value + low.std else "undecided"
    return f"| {one} against {other} | {layer} | {scores} | {verdict} |"


def per_cent(row: Row) -> str:
    """A row's value, with its spread where it has one."""
    return f"{100 * row.value:.1f}" + ("" if row.std is None else f" ± {100 * row.std:.1f}")


def answers(rows: list[Row], comparison: Comparison, probe: str) -> str:
    """The questions as a Markdown table, one line for each layer."""
    layers = list(dict.fromkeys(row.layer for row in rows if row.layer != "pixels"))
    lines = [answer(rows, one, other, probe, layer) for one, other in comparison.questions for layer in layers]
    return "\n".join(
        [f"| question | layer | {probe} accuracy (%) | better |", "|---|---|---|---|", *filter(None, lines)]
    )


def beside_the_paper(rows: list[Row], paper: dict[str, Any]) -> str:
    """The runs at a layer, the last unless it is named, beside what the paper reports of them, as a Markdown table."""
    layer = paper.get("layer") or next(row.layer for row in reversed(rows) if row.layer != "pixels")
    asked = {
        "probe": paper["probe"],
        "layer": layer,
        **{key: paper[key] for key in ("metric", "target") if key in paper},
    }
    here = {row.model: row for row in rows if all(getattr(row, key) == value for key, value in asked.items())}
    found = {run: tabulate([here[run]]).text(0, 0) if run in here else "-" for run in paper["values"]}
    unit = " (%)" if any(row.metric in PERCENT for row in here.values()) else ""
    lines = [f"| run | here, {paper['probe']} of {layer}{unit} | {paper['table']}{unit} |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {run} | {found[run]} | {value} |" for run, value in paper["values"].items())])


def compare(arguments: list[str]) -> None:
    """Finish every run of a comparison and publish it."""
    comparison, name = load_comparison(arguments[0]), Path(arguments[0]).stem
    rows: list[Row] = []
    for seed in comparison.seeds:  # seed by seed: a comparison cut short has something of everything
        for run, own in comparison.runs.items():
            if seed not in own.get("seeds", comparison.seeds):
                continue
            print(f"--- {run}, seed {seed}", flush=True)
            rows += finished_run(comparison, name, run, seed, arguments[1:])
    publish(comparison, name, rows)


def publish(comparison: Comparison, name: str, rows: list[Row]) -> None:
    """Write the comparison's results, its table and its figure, and print the table."""
    # The dataset's name, not its place on this machine.
    rows = summarise([Row(**{**vars(row), "dataset": Path(row.dataset).name}) for row in dict.fromkeys(rows)])
    folder = CARDS / name
    seconds = {
        path.parent.name: read_results(path).run["seconds"]
        for path in sorted((Path("outputs") / name).glob("*/evaluation.json"))
    }
    jumps = {run: epoch_jump(Path("outputs") / name / run) for run in seconds}
    run = {"comparison": vars(comparison), "training_seconds": seconds, "epoch_jumps": jumps}
    write_results(folder / "results.json", run, rows)
    probe = next(row.probe for row in rows)
    verdicts = answers(rows, comparison, probe)
    verdicts = "\n\n".join([verdicts, *(beside_the_paper(rows, paper) for paper in comparison.paper)])
    (folder / "table.md").write_text(f"{format_markdown(rows)}\n\n{verdicts}\n", encoding="utf-8")
    # Of the first target, the classes: others have a scale of their own, and are in the table.
    asked = [row for row in rows if row.metric != "nats" and row.target == rows[0].target]
    plot_comparison(asked, folder / "comparison.png")
    plot_information(rows, probe, folder / "information.png")
    print(f"{format_table(rows)}\n\n{verdicts}\n\nsaved in {folder}")


#: What may stand on the horizontal axis of information against accuracy, the first that was measured: probe -> what it tells.
INFORMATION = {"mine": "MINE between image and y (nats)", "infonce": "InfoNCE between the views (nats)"}


def plot_information(rows: list[Row], probe: str, path: Path) -> None:
    """The information that a representation keeps, or that its two views share (CMC's Figure 5, left), against what the last map
    knows, where it was measured."""
    for estimator, label in INFORMATION.items():
        nats = [row for row in rows if row.probe == estimator]
        if nats:
            layer = next(row.layer for row in rows if row.layer != "pixels")
            known = [row for row in rows if (row.probe, row.layer) == (probe, layer)]
            plot_tradeoff(nats, known, path, label, f"{probe} accuracy of {layer} (%)")
            return


def main(arguments: list[str]) -> int:
    """The command; see `command.run` for its exit status."""
    return command.run(compare, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
