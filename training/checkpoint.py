"""Resumable checkpoints: everything a run needs to go on exactly, in safetensors and JSON, never a pickle.

    OUT/checkpoints/step-00001200/
        model.safetensors       weights of the pretraining model
        optimizer.safetensors   moments of every parameter
        rng-<process>.safetensors
        progress.json           step, epoch, batch, images, seconds, the gradient scaler
        state/                  the method's training state, where it has one

A checkpoint is written under another name and renamed when it is whole; older ones go only after that.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from hf_infomax import UsageError


@dataclass
class Progress:
    """Where a run stands: counts of finished steps, epochs, batches of the epoch under way, images, seconds of training."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    images: int = 0
    seconds: float = 0.0


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint below OUT/checkpoints, or None."""
    found = sorted(path for path in folder.glob("step-*") if (path / "progress.json").is_file())
    return found[-1] if found else None


def _rng() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def save(
    folder: Path,
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Any,
    progress: Progress,
    keep: int,
) -> Path:
    """Write a whole checkpoint below `folder`, then delete all but the newest `keep`; called by every process."""
    final = folder / f"step-{progress.step:08d}"
    partial = folder / f".step-{progress.step:08d}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = {name: tensor.contiguous() for name, tensor in accelerator.unwrap_model(model).state_dict().items()}
        save_file(weights, partial / "model.safetensors")
        tensors = {
            f"{index}.{name}": torch.as_tensor(value).contiguous()
            for index, entries in optimizer.state_dict()["state"].items()
            for name, value in entries.items()
            if value is not None
        }
        save_file(tensors, partial / "optimizer.safetensors")
    accelerator.wait_for_everyone()
    save_file(_rng(), partial / f"rng-{accelerator.process_index}.safetensors")
    if state is not None:
        state.save(partial / "state")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
        record = asdict(progress) | {"scaler": scaler}
        (partial / "progress.json").write_text(json.dumps(record, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in sorted(folder.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def load(
    path: Path, accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: Any
) -> Progress:
    """Restore weights, optimizer, training state and random numbers from a checkpoint.

    Raises:
        UsageError: the checkpoint belongs to another model.
    """
    record = json.loads((path / "progress.json").read_text())
    try:
        accelerator.unwrap_model(model).load_state_dict(load_file(path / "model.safetensors"))
    except RuntimeError as error:
        raise UsageError(
            f"Checkpoint '{path.name}' belongs to another model than the recipe describes: "
            "resume with the recipe it was made by, or choose another output_dir."
        ) from error
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(path / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = tensor
    # Moments alone: learning rates and weight decay are the recipe's, which a resumed run may have changed.
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == parameter.shape:  # fused optimizers walk memory: a moment must lie as its parameter does
                moments[name] = torch.empty_like(parameter).copy_(moment)
    scaler = record.pop("scaler")
    if scaler is not None and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(scaler)
    if state is not None:
        if not (path / "state").is_dir():
            raise UsageError(
                f"Checkpoint '{path.name}' has no memory bank or queue, which the recipe asks for: resume with the recipe it was "
                "made by, or choose another output_dir."
            )
        state.load(path / "state")
    random = path / f"rng-{accelerator.process_index}.safetensors"
    if random.is_file():  # resumed with more processes than before, the new ones have no past to repeat
        states = load_file(random)
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])
    return Progress(**record)
