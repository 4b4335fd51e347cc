"""The training state of a method with a momentum copy: the copy, and the queue of its keys."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.logging import tqdm

from .errors import UsageError, choose
from .key_queue import KeyQueue
from .momentum import MomentumCopy
from .negatives import FromQueue
from .processes import world

FILLS = {"forward": True, "grow": False}


class QueueState:
    """What a run with a momentum copy needs from step to step; made by `model.training_state`.

    Args:
        copy: of the model that is trained.
        queue: view -> its queue; none where negatives are of the batch.
        fill: "forward" fills the queue before the first step with keys of so many images of the data. A queue of random vectors,
            which the authors begin with, is easy to tell from keys: the loss is near its end at once, and rises. "grow" begins
            with an empty queue, whose keys are the negatives there are: the bound is at most log(keys + 1) until it is full.

    Raises:
        UsageError: there is no such fill.
    """

    def __init__(self, copy: MomentumCopy, queues: dict[str, KeyQueue], fill: str = "forward"):
        self.copy, self.queues = copy, queues
        self.to_fill = choose("queue_fill", fill, FILLS) and bool(queues)
        self.step = -1  # the last one that the copy has followed

    @torch.no_grad()
    def before_epoch(self, epoch: int, model: torch.nn.Module, batches: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Fill the queue before the first step.

        Args:
            epoch: the one to come, or to go on with.
            model: the pretraining model, which the copy is a copy of.
            batches: gives an iterator over batches of all samples, as the model is shown them.
        """
        if not self.to_fill:
            return
        for batch in tqdm(batches(), desc="filling the queue", leave=False, disable=world()[0] > 0):
            self._enqueue(self.copy.first(model.key_images(batch["pixel_values"])), batch.get("sample_index"))
            if all(queue.filled == queue.size for queue in self.queues.values()):
                break
        self.to_fill = False

    def keys(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) -> view -> keys (B, D), without gradient."""
        return self.copy(images)

    def negatives(self, sample_index: Tensor | None) -> dict[str, FromQueue]:
        """View -> a sampler of this step."""
        return {view: FromQueue(queue, sample_index) for view, queue in self.queues.items()}

    def after_step(self, output: Any, step: int) -> None:
        """Put the keys of the batch into the queue, and let the copy follow the model, once a step of its optimizer."""
        self._enqueue(output.embeddings, output.sample_index)
        if step != self.step:  # batches whose gradients are accumulated have one number
            self.copy.update()
            self.step = step

    def _enqueue(self, keys: dict[str, Tensor], sample_index: Tensor | None) -> None:
        for view, queue in self.queues.items():
            queue.enqueue(keys[view], sample_index)

    def save(self, folder: Path) -> None:
        """Write the state; called by every process, of which the first has all there is."""
        if world()[0] == 0:
            self.copy.save(folder / "momentum.safetensors")
            for view, queue in self.queues.items():
                queue.save(folder / view / "queue.safetensors")
            (folder / "state.json").write_text(json.dumps({"step": self.step, "to_fill": self.to_fill}))

    def load(self, folder: Path) -> None:
        """Read a state that any number of processes has written.

        Raises:
            UsageError: it is of a run without a momentum copy, or of another model.
        """
        if not (folder / "momentum.safetensors").is_file():
            raise UsageError(
                "The saved training state has no momentum copy, and the recipe asks for one: resume with the recipe it was made by."
            )
        record = json.loads((folder / "state.json").read_text())
        self.step, self.to_fill = record["step"], record["to_fill"]
        self.copy.load(folder / "momentum.safetensors")
        for view, queue in self.queues.items():
            queue.load(folder / view / "queue.safetensors")
