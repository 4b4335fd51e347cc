"""The training state of a method with memory banks: the banks, the draws and Z, none of which a published model has."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.logging import tqdm

from .bank import MemoryBank
from .bounds import log_partition
from .errors import UsageError, choose
from .negatives import FromBank, draw
from .processes import gather, total, world

FILLS = {"forward": True, "random": False}


class BankState:
    """What a run with memory banks needs from step to step; made by `model.training_state`.

    Args:
        banks: view -> its memory bank, all of the same samples.
        num_negatives: m, drawn anew in every step, the same samples for every view.
        shared: one draw for the whole batch; see `negatives.draw`.
        positive: "bank" or "batch"; see `negatives.FromBank`.
        fill: "forward" gives every row what the encoder says before the first step; with "random" rows are noise for an epoch.
        z_momentum: of the running mean of Z that noise-contrastive estimation divides by.
        seed: of the draws.

    Raises:
        UsageError: there is no such fill or positive, or there are not so many other samples.
    """

    def __init__(
        self,
        banks: dict[str, MemoryBank],
        num_negatives: int,
        shared: bool = False,
        positive: str = "bank",
        fill: str = "forward",
        z_momentum: float = 0.99,
        seed: int = 0,
    ):
        self.banks = banks
        self.num_samples = next(iter(banks.values())).num_samples
        if not 1 <= num_negatives < self.num_samples:
            raise UsageError(
                f"num_negatives={num_negatives} other samples cannot be drawn from {self.num_samples:,}: "
                f"choose 1 to {self.num_samples - 1:,}."
            )
        self.num_negatives, self.shared = num_negatives, shared
        self.positive = choose("bank_positive", positive, {"bank": "bank", "batch": "batch"})
        self.to_fill = choose("bank_fill", fill, FILLS)
        self.z_momentum, self.seed, self.draws = z_momentum, seed, 0
        self.log_z: dict[str, Tensor] = {}
        self.generator = torch.Generator(next(iter(banks.values())).rows.device)

    @torch.no_grad()
    def before_epoch(self, epoch: int, model: torch.nn.Module, batches: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Fill the banks before the first step, by a forward pass over the data, in training mode as the steps that follow.

        Args:
            epoch: the one to come.
            model: the pretraining model.
            batches: gives an iterator over batches of all samples, as the model is shown them.
        """
        if not self.to_fill:
            return
        for bank in self.banks.values():
            bank.invalidate()
        for batch in tqdm(batches(), desc="filling the memory bank", leave=False, disable=world()[0] > 0):
            self.require_index(batch.get("sample_index"))
            present = batch.get("present") or {}
            for view, vectors in model.embeddings(**batch).items():
                self.banks[view].update(batch["sample_index"], vectors, present.get(view), momentum=0.0)
        self.to_fill = False

    def require_index(self, sample_index: Tensor | None) -> None:
        if sample_index is None:
            raise UsageError("A memory bank needs sample_index, each image's place in its dataset: the batch has none.")
        next(iter(self.banks.values())).require(sample_index)

    def negatives(self, sample_index: Tensor | None) -> dict[str, FromBank]:
        """View -> a sampler of this step.

        Raises:
            UsageError: the batch does not say which samples it holds, or one is outside the bank.
        """
        self.require_index(sample_index)
        self.generator.manual_seed((self.seed * 1_000_003 + self.draws) % 2**63)
        self.draws += 1
        candidates = draw(sample_index, self.num_negatives, self.num_samples, self.generator, self.shared)
        return {view: FromBank(bank, sample_index, candidates, self.positive) for view, bank in self.banks.items()}

    @torch.no_grad()
    def running_log_z(self, pair: str, negative: Tensor) -> Tensor:
        """log Z of a pair of views, after this step's scores (B, 1, m), of all processes, have had their part in its mean."""
        rows = torch.tensor(float(len(negative)), device=negative.device)
        own = log_partition(negative, self.num_samples) if len(negative) else rows  # the value of none has no weight
        now, count = gather((own + rows.log()).unsqueeze(0)).logsumexp(dim=0), total(rows)  # log of a sum of means
        if not count:
            return self.log_z.get(pair, now.new_zeros(()))
        now = now - count.log()
        if pair in self.log_z:
            old = self.log_z[pair] + math.log(self.z_momentum)
            now = torch.logaddexp(old, now + math.log1p(-self.z_momentum))
        self.log_z[pair] = now
        return now

    def after_step(self, output: Any, step: int) -> None:
        """Move the rows of the batch towards what the encoder has said of it."""
        present = output.present or {}
        for view, vectors in output.embeddings.items():
            self.banks[view].update(output.sample_index, vectors, present.get(view))

    def save(self, folder: Path) -> None:
        """Write the state; called by every process, each of which writes its rows."""
        rank, processes = world()
        for view, bank in self.banks.items():
            bank.save(folder / view / f"rows-{rank}-of-{processes}.safetensors")
        if rank == 0:
            log_z = {pair: value.item() for pair, value in self.log_z.items()}
            record = {"draws": self.draws, "seed": self.seed, "to_fill": self.to_fill, "log_z": log_z}
            (folder / "state.json").write_text(json.dumps(record, indent=1))

    def load(self, folder: Path) -> None:
        """Read a state that any number of processes has written."""
        record = json.loads((folder / "state.json").read_text())
        self.draws, self.seed, self.to_fill = record["draws"], record["seed"], record["to_fill"]
        self.log_z = {
            pair: torch.tensor(value, device=self.generator.device) for pair, value in record["log_z"].items()
        }
        for view, bank in self.banks.items():
            bank.load(sorted((folder / view).glob("rows-*.safetensors")))
