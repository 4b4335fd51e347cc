"""What a run tells while it runs: OUT/metrics.jsonl, the progress bar, the trackers."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from checkpoint import Progress, newest
from hf_infomax import PreTrainingOutput, UsageError
from hf_infomax.evaluation import Health


def read_history(out: Path) -> list[dict[str, Any]]:
    """The lines of OUT/metrics.jsonl: steps, which have a `loss`, and measurements, which have a `knn` or a `health`."""
    path = out / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


class Metrics:
    """One line of metrics.jsonl for each logged step and each measurement, kept in `history`; shown on a bar, sent to the trackers.

    A resumed run first drops the lines behind its checkpoint, for it takes those steps again.
    """

    def __init__(self, out: Path, accelerator: Accelerator, start: Progress, total: int, steps_per_epoch: int):
        self.path, self.accelerator, self.steps_per_epoch = out / "metrics.jsonl", accelerator, steps_per_epoch
        self.history = [record for record in read_history(out) if record["step"] <= start.step]
        if accelerator.is_main_process:
            self.path.write_text("".join(json.dumps(record) + "\n" for record in self.history))
        self.alarm = ""  # on the bar, from a measurement that gives a warning to one that gives none
        self.bar = tqdm(
            total=total, initial=start.step, unit="step", disable=not accelerator.is_main_process, dynamic_ncols=True
        )

    def log(self, output: PreTrainingOutput, progress: Progress, learning_rate: float, speed: float) -> None:
        """Record a step.

        Raises:
            UsageError: the loss is not finite; names the checkpoint from which the run can go on.
        """
        loss = self.accelerator.reduce(output.loss.detach().float(), "mean").item()
        if not math.isfinite(loss):
            raise self._diverged(f"The loss is {loss} at step {progress.step}")
        record = {
            "step": progress.step,
            "epoch": round(progress.step / self.steps_per_epoch, 4),
            "images": progress.images,
            "loss": loss,
            "bound": None if output.bound is None else output.bound.item(),
            "parts": {name: value.item() for name, value in output.parts.items()},
            "learning_rate": learning_rate,
            "images_per_second": round(speed, 1),
        }
        bound = "no MI bound" if record["bound"] is None else f"{record['bound']:.2f} nats"
        self.bar.set_postfix_str(f"{speed:.0f} img/s, loss {loss:.3f}, bound {bound}{self.alarm}", refresh=False)
        scalars = {key: record[key] for key in ("loss", "bound", "learning_rate") if record[key] is not None}
        self.accelerator.log(scalars | record["parts"], step=progress.step)
        self._write(record)

    def log_health(self, health: Health, progress: Progress) -> None:
        """Record what is seen without labels; say once, and show on the bar, that the representation collapses or dies."""
        epoch, warnings = progress.step / self.steps_per_epoch, health.warnings
        told = f"RankMe {health.rankme:.1f} of {health.units}, dead units {health.dead_units:.0%}"
        self.bar.write(f"epoch {epoch:5.1f}   layer {health.layer}:  {told}")
        for warning in warnings:
            self.bar.write(f"warning: {warning}")
        self.alarm = f", {'; '.join(warnings)}" if warnings else ""
        values = health.values()
        self.accelerator.log({f"health/{name}": value for name, value in values.items()}, step=progress.step)
        record = {"layer": health.layer, "units": health.units, **values, "warnings": list(warnings)}
        self._write({"step": progress.step, "epoch": round(epoch, 4), "health": record})

    def log_knn(self, accuracies: dict[str, float], progress: Progress) -> None:
        """Record the accuracies of the periodic kNN, by layer, where there are labels to ask for."""
        if not accuracies:
            return
        epoch = progress.step / self.steps_per_epoch
        listed = "  ".join(f"{layer} {value:.3f}" for layer, value in accuracies.items())
        self.bar.write(f"epoch {epoch:5.1f}   kNN on held-out images:  {listed}")
        self.accelerator.log({f"knn/{layer}": value for layer, value in accuracies.items()}, step=progress.step)
        self._write({"step": progress.step, "epoch": round(epoch, 4), "knn": accuracies})

    def require_finite(self, network: torch.nn.Module, progress: Progress) -> None:
        """Refuse weights that are not finite, before they become a checkpoint.

        Raises:
            UsageError: as `log`.
        """
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            raise self._diverged(f"The weights are no longer finite at step {progress.step}")

    def _diverged(self, what: str) -> UsageError:
        good = newest(self.path.parent / "checkpoints")
        kept = (
            f"{good} is the last good checkpoint, from which resume=true goes on" if good else "nothing was saved yet"
        )
        return UsageError(f"{what}: {kept}; lower train.learning_rate or set train.precision=fp32.")

    def _write(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
