"""Ask what representations know: layers x probes and measures, beside random initialisation and raw pixels.

    python training/evaluate.py CHECKPOINT [CHECKPOINT ...] [key=value ...]
    python training/evaluate.py outputs/dim_local_cifar10_cpu
    python training/evaluate.py outputs/dim outputs/cmc timm/resnet18 path/to/dinov2 data.dataset=path/to/cifar10
    python training/evaluate.py outputs/dim probes=[svm,mlp] measures=[mine,ndm,ms_ssim] probe_seeds=5 layers=[conv,fc,y]
    torchrun --nproc_per_node 4 training/evaluate.py outputs/dim

CHECKPOINT is a run's folder or its OUT/model, any vision model of transformers by folder or Hub id, or timm/NAME. Prints a table,
adds its rows to results.json beside the checkpoint, and writes report.html with its figures. Dataset and columns come from the
first run's recipe unless given. What a probe fits or chooses, it does on the training split; the test split is asked once.
"""

import process  # noqa: F401 (before torch)

# isort: split
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import command
from evaluation_figures import draw
from evaluation_report import write_page
from hf_infomax.evaluation import (
    LABEL_FREE,
    Row,
    collapse_warnings,
    format_markdown,
    format_table,
    read_results,
    write_results,
)
from hf_infomax.models.errors import UsageError
from measure import Evaluation, load_settings, measure, processes, run_folder


def evaluate(arguments: list[str]) -> None:
    """Measure checkpoints, save the rows as they come, print the table, write the report."""
    names = [argument for argument in arguments if "=" not in argument]
    if not names:
        raise UsageError(
            "There is no checkpoint to evaluate: name a folder, a Hub id or timm/NAME before the key=value."
        )
    settings = load_settings(names[0], [argument for argument in arguments if "=" in argument])
    checkpoints, state = named(names, settings), processes()
    output = output_file(names, settings)
    rows: list[Row] = []
    for index, (name, checkpoint) in enumerate(checkpoints.items()):
        own = replace(settings, baselines=settings.baselines and index == 0)
        rows += measure(checkpoint, own, name)
        if state.is_main_process:
            write_results(output, {"evaluation": OmegaConf.to_container(OmegaConf.structured(settings))}, rows)
    if not state.is_main_process:
        return
    if settings.card:
        folder = run_folder(names[0])
        publish(Path(settings.card), read_results(folder / "results.json").run if folder else {}, rows)
    print(f"{', '.join(names)} on {settings.data.dataset}, {settings.data.eval_split}\n\n{format_table(rows)}\n")
    print(f"saved in {output}")
    if settings.figures:
        print(f"report in {report(output.parent, checkpoints, settings, rows)}")


def named(checkpoints: list[str], settings: Evaluation) -> dict[str, str]:
    """Name in the rows -> checkpoint: a single one is "trained" or "as given", several are called by their folders."""
    if len(checkpoints) == 1:
        return {"trained" if settings.pretrained else "as given": checkpoints[0]}
    short = {checkpoint: (run_folder(checkpoint) or Path(checkpoint)).name for checkpoint in dict.fromkeys(checkpoints)}
    taken = Counter(short.values())
    return {name if taken[name] == 1 else checkpoint: checkpoint for checkpoint, name in short.items()}


def output_file(checkpoints: list[str], settings: Evaluation) -> Path:
    """Where the rows go: beside a single run, else into a folder of the evaluation's own."""
    if settings.output:
        return Path(settings.output)
    folder = run_folder(checkpoints[0]) if len(checkpoints) == 1 else Path("outputs") / "evaluation"
    return (folder or Path()) / "results.json"


def warnings_of(rows: list[Row]) -> list[str]:
    """What is wrong with representations, as sentences."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row.probe == LABEL_FREE:
            found.setdefault((row.model, row.layer), {})[row.metric] = row.value
    told = []
    for (model, layer), values in found.items():
        sentences = collapse_warnings(layer, values["rankme"], values["dead_units"])
        told += [f"{model}: {sentence}." for sentence in sentences]
    return told


def report(folder: Path, checkpoints: dict[str, str], settings: Evaluation, rows: list[Row]) -> Path:
    """The page, with its figures in a folder beside it."""
    pictures = draw(folder / "figures", checkpoints, settings, rows)
    load = "\n".join(
        [
            "from hf_infomax.evaluation import load_encoder",
            "",
            *(f"load_encoder({name!r})" for name in checkpoints.values()),
        ]
    )
    given = OmegaConf.to_container(OmegaConf.structured(settings))
    return write_page(folder / "report.html", rows, pictures, given, load, warnings=warnings_of(rows))


def publish(card: Path, run: dict[str, Any], rows: list[Row]) -> None:
    """Write what may be published of a run and its rows: a dataset goes by its name, not by its place on this machine."""
    rows = [replace(row, dataset=Path(row.dataset).name) for row in rows]
    recipe = {
        key: value for key, value in run.get("recipe", {}).items() if key in ("method", "model", "views", "train")
    }
    kept = {key: value for key, value in run.items() if key != "evaluation"}
    write_results(card / "results.json", kept | {"recipe": recipe}, rows)
    (card / "table.md").write_text(format_markdown(rows) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """The command; see `command.run` for its exit status."""
    return command.run(evaluate, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
