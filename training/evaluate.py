"""Ask what a representation knows: layers x probes, beside random initialisation and raw pixels.

    python training/evaluate.py CHECKPOINT [key=value ...]
    python training/evaluate.py outputs/dim_local_cifar10_cpu
    python training/evaluate.py timm/resnet18 pretrained=false data.dataset=hf_infomax/colour_digits

CHECKPOINT is a run's folder or its OUT/model, a Hub id, or timm/NAME. Prints a table and adds its rows to results.json beside
the checkpoint. Dataset and columns come from the run's recipe unless given. Probes are fitted on the training split, their
regularisation chosen on a tenth of it; the test split is asked once.
"""

import process  # noqa: F401 (before torch)

# isort: split
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import command
from hf_infomax.evaluation import Row, format_markdown, format_table, read_results, write_results
from measure import load_settings, measure, run_folder


def evaluate(arguments: list[str]) -> None:
    """Measure a checkpoint, save the rows, print the table."""
    checkpoint, overrides = arguments[0], arguments[1:]
    settings = load_settings(checkpoint, overrides)
    rows = measure(checkpoint, settings)
    folder = run_folder(checkpoint)
    output = Path(settings.output or (folder / "results.json" if folder else "results.json"))
    write_results(output, {"evaluation": OmegaConf.to_container(OmegaConf.structured(settings))}, rows)
    if settings.card:
        publish(Path(settings.card), read_results(folder / "results.json").run if folder else {}, rows)
    print(
        f"{checkpoint} on {settings.data.dataset}, {settings.data.eval_split}\n\n{format_table(rows)}\n\nsaved in {output}"
    )


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
