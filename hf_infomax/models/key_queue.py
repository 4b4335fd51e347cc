"""The queue of keys: what a momentum copy said of the last batches, as negatives (He et al. 2020)."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from .errors import UsageError
from .processes import gather

#: Of a key whose image has no known place in the data.
UNKNOWN = -1


class KeyQueue:
    """The last K keys, unit vectors, each with the place of its image in the data: first in, first out.

    Unlike a `MemoryBank` it needs no index of the data and forgets; like its rows, keys have no gradient, and queries do. All
    processes keep the whole queue and see the keys of all, so that it does not depend on their number.

    Args:
        size: K.
        units: D.
        device: of the keys.

    Raises:
        UsageError: there is no room for a key.

    >>> import torch
    >>> queue = KeyQueue(6, 16)
    >>> for _ in range(2):
    ...     queue.enqueue(torch.randn(4, 16))
    >>> queue.filled, queue.pointer  # 8 keys have come, the first 2 are gone
    (6, 2)
    """

    def __init__(self, size: int, units: int, device: torch.device | str = "cpu"):
        if size < 1:
            raise UsageError(f"queue_size={size}: a queue holds at least one key.")
        self.size = size
        self.rows = torch.zeros(size, units, device=device)  # (K, D)
        self.samples = torch.full((size,), UNKNOWN, device=device)  # (K,)
        self.pointer = 0  # where the next key goes
        self.filled = 0  # the first so many rows are keys

    @torch.no_grad()
    def enqueue(self, keys: Tensor, sample_index: Tensor | None = None) -> None:
        """Put the keys (B, D) of this process' images behind those that are there; a collective call.

        Args:
            keys: of any length, as vectors; any number of them, more than there is room for too.
            sample_index: (B,) int64, the images' places in the data; None where they have none, as in a stream.
        """
        if sample_index is None:
            sample_index = torch.full((len(keys),), UNKNOWN, device=keys.device)
        keys, sample_index = gather(F.normalize(keys.float(), dim=1)), gather(sample_index)
        dropped = max(len(keys) - self.size, 0)
        count = len(keys) - dropped
        place = (self.pointer + dropped + torch.arange(count, device=self.rows.device)) % self.size
        self.rows[place], self.samples[place] = keys[dropped:], sample_index[dropped:]
        self.pointer = (self.pointer + dropped + count) % self.size
        self.filled = min(self.filled + count, self.size)

    def scores(self, queries: Tensor, sample_index: Tensor | None = None) -> Tensor:
        """Dot products (B, K') of queries (B, D) with the K' keys there are, differentiable in the queries.

        Args:
            sample_index: (B,) int64, the queries' places in the data: -inf for the keys of a query's own image.
        """
        with torch.autocast(queries.device.type, enabled=False):
            scores = queries.float() @ self.rows[: self.filled].T
        return self.without_own(scores, sample_index)

    def without_own(self, scores: Tensor, sample_index: Tensor | None) -> Tensor:
        """Scores (B, K') with -inf, in place, for the keys of an anchor's own image: there are some where K is near N or above."""
        if sample_index is None:
            return scores
        samples = self.samples[: self.filled]
        # Few keys are of this batch: to compare all with all would take as long as the product.
        place = torch.isin(samples, sample_index).nonzero().flatten()
        row, of = (samples[place] == sample_index[:, None]).nonzero(as_tuple=True)
        if len(row):
            scores[row, place[of]] = -torch.inf
        return scores

    def save(self, file: Path) -> None:
        """Write keys, places and pointer; one process does, for all have the same."""
        file.parent.mkdir(parents=True, exist_ok=True)
        where = torch.tensor([self.pointer, self.filled])
        save_file({"rows": self.rows, "samples": self.samples, "where": where}, file)

    def load(self, file: Path) -> None:
        """Read a queue of the same size, to go on exactly; of a shorter or longer one, the newest keys that there is room for.

        Raises:
            UsageError: it holds vectors of another size.
        """
        stored = load_file(file)
        rows, samples, (pointer, filled) = stored["rows"], stored["samples"], stored["where"].tolist()
        if rows.shape[1] != self.rows.shape[1]:
            raise UsageError(
                f"The saved queue has keys of {rows.shape[1]} units, and the model compares vectors of {self.rows.shape[1]}: "
                "resume with the recipe that it was made by."
            )
        if len(rows) == self.size:
            self.rows.copy_(rows)
            self.samples.copy_(samples)
            self.pointer, self.filled = pointer, filled
            return
        oldest_first = (pointer - filled + torch.arange(filled)) % len(rows)
        kept = oldest_first[-self.size :]
        self.rows[: len(kept)], self.samples[: len(kept)] = rows[kept].to(self.rows), samples[kept].to(self.samples)
        self.pointer, self.filled = len(kept) % self.size, len(kept)
