"""The training state of a method with memory banks: banks, draws, close neighbours and Z, none of which a published model has."""

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
from .negatives import FromBank
from .neighbors import CloseNeighbors
from .processes import gather, total, world
from .regions import Marginal, Region

FILLS = {"forward": True, "random": False}

# What the file of a state says beside Z.
_COUNTS = ("draws", "images", "epoch", "seed", "to_fill")


class BankState:
    """What a run with memory banks needs from step to step; made by `model.training_state`.

    Args:
        banks: view -> its memory bank, all of the same samples.
        region: that the negatives are drawn from, anew in every step.
        close: view -> the close neighbours in its bank, refreshed at the beginning of every epoch; None: nobody asks for them.
        positive: "bank" or "batch", where the positive is from; see `negatives.FromBank`.
        close_positive: the close neighbours are further positives (LA), instead of no negatives (ANN).
        warmup_epochs: with negatives of the marginal and no neighbours, before the region's turn.
        fill: "forward" gives every row what the encoder says before the first step; with "random" rows are noise for an epoch.
        z_momentum: of the running mean of Z that noise-contrastive estimation divides by.
        seed: of the draws.

    Raises:
        UsageError: there is no such fill or positive, or the data is too small for the region or the neighbourhoods.
    """

    def __init__(
        self,
        banks: dict[str, MemoryBank],
        region: Region,
        close: dict[str, CloseNeighbors] | None = None,
        positive: str = "bank",
        close_positive: bool = False,
        warmup_epochs: int = 0,
        fill: str = "forward",
        z_momentum: float = 0.99,
        seed: int = 0,
    ):
        self.banks, self.region, self.close = banks, region, close
        self.num_samples = next(iter(banks.values())).num_samples
        for part in (region, *(close or {}).values()):
            part.require(self.num_samples)
        self.positive = choose("bank_positive", positive, {"bank": "bank", "batch": "batch"})
        self.close_positive = close_positive
        self.to_fill = choose("bank_fill", fill, FILLS)
        self.warmup_epochs, self.z_momentum, self.seed = warmup_epochs, z_momentum, seed
        self.draws = self.images = 0
        self.epoch = -1  # the one whose neighbours are known
        self.log_z: dict[str, Tensor] = {}
        self.generator = torch.Generator(next(iter(banks.values())).rows.device)

    @torch.no_grad()
    def before_epoch(self, epoch: int, model: torch.nn.Module, batches: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Fill the banks before the first step, by a forward pass over the data, in training mode as the steps that follow; and
        find the close neighbours of an epoch before its first step, whatever number of batches it has.

        Args:
            epoch: the one to come, or to go on with: what a resumed run has of it stays.
            model: the pretraining model.
            batches: gives an iterator over batches of all samples, as the model is shown them.
        """
        if self.to_fill:
            self._fill(model, batches)
        if epoch >= self.warmup_epochs:
            for view, neighbors in (self.close or {}).items():
                if epoch != self.epoch or neighbors.table is None:  # none: resumed from a run that asked for none
                    neighbors.refresh(self.banks[view], epoch)
        self.epoch = epoch

    def _fill(self, model: torch.nn.Module, batches: Callable[[], Iterable[dict[str, Any]]]) -> None:
        for bank in self.banks.values():
            bank.invalidate()
        for batch in tqdm(batches(), desc="filling the memory bank", leave=False, disable=world()[0] > 0):
            self.require_index(batch.get("sample_index"))
            present = batch.get("present") or {}
            for view, vectors in model.embeddings(**batch).items():
                self.banks[view].update(batch["sample_index"], vectors, present.get(view), momentum=0.0)
        self.to_fill = False

    @property
    def warming_up(self) -> bool:
        """Whether the region's turn is still to come."""
        return max(self.epoch, 0) < self.warmup_epochs

    def negatives(self, sample_index: Tensor | None) -> dict[str, FromBank]:
        """View -> a sampler of this step.

        Raises:
            UsageError: the batch does not say which samples it holds, or one is outside the bank.
        """
        self.require_index(sample_index)
        self.generator.manual_seed((self.seed * 1_000_003 + self.draws) % 2**63)
        self.draws += 1
        region, close = self.region, self.close
        if self.warming_up:
            region, close = Marginal(region.count(self.num_samples), shared=True), None
        epochs = self.images / self.num_samples - self.warmup_epochs
        candidates = region(self.banks, sample_index, self.generator, epochs, close)
        return {
            view: FromBank(bank, sample_index, candidates[view], self.positive, self.close_positive)
            for view, bank in self.banks.items()
        }

    def require_index(self, sample_index: Tensor | None) -> None:
        if sample_index is None:
            raise UsageError("A memory bank needs sample_index, each image's place in its dataset: the batch has none.")
        next(iter(self.banks.values())).require(sample_index)

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
        self.images += len(output.sample_index) * world()[1]

    def save(self, folder: Path) -> None:
        """Write the state; called by every process, each of which writes its rows."""
        rank, processes = world()
        for view, bank in self.banks.items():
            bank.save(folder / view / f"rows-{rank}-of-{processes}.safetensors")
        if rank == 0:
            log_z = {pair: value.item() for pair, value in self.log_z.items()}
            record = {name: getattr(self, name) for name in _COUNTS} | {"log_z": log_z}
            (folder / "state.json").write_text(json.dumps(record, indent=1))
            for view, neighbors in (self.close or {}).items():
                neighbors.save(folder / view / "neighbors.safetensors")

    def load(self, folder: Path) -> None:
        """Read a state that any number of processes has written.

        Raises:
            UsageError: it is of a run without memory banks, or of other data.
        """
        record = json.loads((folder / "state.json").read_text())
        if "log_z" not in record:
            raise UsageError(
                "The saved training state has no memory bank, and the recipe asks for one: resume with the recipe it was made by."
            )
        for name in _COUNTS:
            setattr(self, name, record.get(name, getattr(self, name)))  # an older file says less
        self.log_z = {
            pair: torch.tensor(value, device=self.generator.device) for pair, value in record["log_z"].items()
        }
        for view, bank in self.banks.items():
            bank.load(sorted((folder / view).glob("rows-*.safetensors")))
        for view, neighbors in (self.close or {}).items():
            neighbors.load(folder / view / "neighbors.safetensors", self.generator.device)
