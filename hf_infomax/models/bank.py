"""The memory bank: one unit vector of every sample of the data, kept up to date as a run goes along (Wu et al. 2018; CMC 3.4)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from .errors import UsageError, choose
from .processes import gather, own_part, total, world
from .search import nearest

#: The types that rows may be stored in, by the name that configurations use.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Rows that are gathered, turned into float32 and multiplied at a time, in values: what a core's cache holds, and what a GPU
# likes. On a CPU 4,096 rows of 128 at a time are two to three times as fast as all rows of an image at once.
_CHUNK = {"cpu": 2**19, "cuda": 2**27}


class MemoryBank:
    r"""N unit vectors: row i is a running mean of what the encoder said of sample i.

    .. math:: m_i \leftarrow \frac{\mu\, m_i + (1 - \mu)\, z_i}{\| \mu\, m_i + (1 - \mu)\, z_i \|}

    Sharded over processes by index: of P processes, process r keeps the rows i with i mod P = r. Rows do not travel to be scored:
    queries do, so the traffic of a step grows with the batch and not with the bank. Which samples have a row at all is known
    to every process. Rows have no gradient; queries do.

    Args:
        num_samples: N.
        size: D.
        momentum: mu (0.5 in CMC).
        dtype: of the rows, "float32" or "bfloat16"; all arithmetic is float32.
        device: of the rows.
        seed: of the normalised random rows that it begins with; all processes must give the same.

    >>> import torch
    >>> bank = MemoryBank(100, 16)
    >>> bank.update(torch.tensor([3, 7]), torch.randn(2, 16))
    >>> bank.scores(torch.randn(4, 16), torch.randint(100, (4, 8))).shape
    torch.Size([4, 8])
    """

    def __init__(
        self,
        num_samples: int,
        size: int,
        momentum: float = 0.5,
        dtype: str = "float32",
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        self.num_samples, self.size, self.momentum = num_samples, size, momentum
        self.rank, self.processes = world()
        own = torch.arange(self.rank, num_samples, self.processes)
        rows = torch.empty(len(own), size, dtype=choose("bank_dtype", dtype, DTYPES))
        # Block by block: no float32 copy of the whole, and the same rows for any number of processes.
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, num_samples, 2**16):
            block = F.normalize(torch.randn(min(2**16, num_samples - start), size, generator=generator), dim=1)
            mine = own[(own >= start) & (own < start + 2**16)]
            rows[mine // self.processes] = block[mine - start].to(rows.dtype)
        self.rows = rows.to(device)  # (N / P, D)
        self.valid = torch.ones(num_samples, dtype=torch.bool, device=device)  # the same on all processes
        self.whole = True  # no row is missing: nothing has to be masked

    def require(self, index: Tensor) -> None:
        """A `UsageError` for a sample that the bank has no row of."""
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.num_samples:
            wrong = index[(index < 0) | (index >= self.num_samples)][0].item()
            raise UsageError(
                f"sample_index {wrong} is outside the memory bank of {self.num_samples:,} samples: make the state with the "
                "dataset's number of images, and give each image's place in it, from 0 on."
            )

    def invalidate(self) -> None:
        """Take every row for noise until it is updated."""
        self.valid.fill_(False)
        self.whole = False

    @torch.no_grad()
    def update(
        self, index: Tensor, vectors: Tensor, present: Tensor | None = None, momentum: float | None = None
    ) -> None:
        """Move the rows of a batch towards its vectors; a collective call.

        Args:
            index: (B,) int64, samples of this process' batch; of one that comes twice, the last vector counts.
            vectors: (B, D), of any length.
            present: (B,) bool, the samples that have this view; the others get no row. None: all.
            momentum: instead of the bank's own, such as 0 to set rows. A row that is not valid is set in any case.
        """
        self.require(index)
        present = torch.ones_like(index, dtype=torch.bool) if present is None else present
        index, vectors, present = gather(index), gather(vectors.float()), gather(present)
        fresh = ~self.valid[index]  # before it is known
        self.valid[index] = present
        self.whole = self.whole and bool(present.all())
        own = (present & (index % self.processes == self.rank)).nonzero().flatten()  # places in the batch
        samples, of = index[own].unique(return_inverse=True)
        own = torch.zeros_like(samples).scatter_reduce_(0, of, own, "amax")  # of a sample that comes twice, the last
        places = samples // self.processes
        mu = self.momentum if momentum is None else momentum
        mu = torch.where(fresh[own], 0.0, mu).unsqueeze(-1)  # (B', 1)
        new = mu * self.rows[places].float() + (1 - mu) * F.normalize(vectors[own], dim=1)
        self.rows[places] = F.normalize(new, dim=1).to(self.rows.dtype)

    @torch.no_grad()
    def lookup(self, index: Tensor) -> Tensor:
        """The rows of samples, float32 (..., D); a collective call with the same `index` (...) on all processes."""
        if self.processes == 1:
            return self.rows[index].float()
        own = (index % self.processes == self.rank).unsqueeze(-1)
        return total(self.rows[index // self.processes % len(self.rows)].float() * own)

    @torch.no_grad()
    def nearest(
        self, queries: Tensor, k: int, exclude: Tensor | None = None, pool: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k samples whose rows have the largest dot products with each query; a collective call, exact (`search.nearest`).

        Args:
            queries: (Q, D), the same on all processes.
            k: at most the number of samples that are searched.
            exclude: (Q,) int64, a sample that is not to be found, for each query.
            pool: (n,) int64, the samples that are searched, each once, the same on all processes. None: all.

        Returns:
            Scores float32 and samples int64, (Q, k) each, in no order, the same on all processes; -inf where there are not so many
            that have a row and are not excluded.
        """
        device = self.rows.device
        own = torch.arange(self.num_samples, device=device) if pool is None else pool
        if self.processes > 1:
            own = own[own % self.processes == self.rank]
        if not self.whole:
            own = own[self.valid[own]]
        rows = self.rows if len(own) == len(self.rows) and pool is None else self.rows[own // self.processes]
        if exclude is not None:
            exclude = places(own, self.num_samples)[exclude]
        scores, place = nearest(queries, rows, min(k, len(own)), exclude)
        missing = (0, k - scores.shape[1])
        scores, samples = F.pad(scores, missing, value=-torch.inf), F.pad(own[place], missing)
        if self.processes == 1:
            return scores, samples
        scores, samples = (gather(part.T.contiguous()).T for part in (scores, samples))  # (Q, P * k), of all processes
        scores, of = scores.topk(k, dim=1, sorted=False)
        return scores, samples.gather(1, of)

    def scores(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Dot products of queries with rows; a collective call.

        Args:
            queries: (B, D), of this process' batch.
            candidates: (K,) int64 for rows that all share, the same on all processes; or (P * B, K), those of the batches
                of all processes in their order, each query its own.

        Returns:
            (B, K) float32, -inf where the sample has no row; differentiable in the queries.
        """
        with torch.autocast(queries.device.type, enabled=False):
            if candidates.dim() == 1:
                scores = queries.float() @ self.lookup(candidates).T
            else:
                scores = _OwnCandidates.apply(queries.float(), self, candidates)
                candidates = own_part(candidates)
        return scores if self.whole else scores.masked_fill(~self.valid[candidates], -torch.inf)

    def pieces(self, candidates: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Candidates (B, K) -> queries, places of their candidates, and the rows there (b, k, D) float32, piece by piece; rows
        of another process are zero."""
        queries, count = candidates.shape
        length = max(1, _CHUNK.get(self.rows.device.type, _CHUNK["cpu"]) // self.size)  # rows of a piece
        step = max(1, length // count)
        for first in range(0, queries, step):
            for start in range(0, count, length):
                piece = slice(first, first + step), slice(start, start + length)
                index = candidates[piece]
                if self.processes == 1:
                    rows = self.rows.index_select(0, index.flatten()).float()
                else:
                    rows = self.rows.index_select(0, index.flatten() // self.processes % len(self.rows)).float()
                    rows *= (index.flatten() % self.processes == self.rank).unsqueeze(-1)
                yield *piece, rows.unflatten(0, index.shape)

    def save(self, file: Path) -> None:
        """Write this process' rows, and what says whose they are."""
        shard = torch.tensor([self.rank, self.processes])
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"rows": self.rows, "valid": self.valid, "shard": shard}, file)

    def load(self, files: list[Path]) -> None:
        """Read the rows that a run of any number of processes has written.

        Raises:
            UsageError: the files hold a bank of other data.
        """
        for file in files:
            stored = load_file(file)
            rank, processes = stored["shard"].tolist()
            index = torch.arange(rank, self.num_samples, processes)
            if len(stored["valid"]) != self.num_samples or stored["rows"].shape != (len(index), self.size):
                raise UsageError(
                    f"The saved memory bank is of {len(stored['valid']):,} samples in {stored['rows'].shape[1]} dimensions, and "
                    f"the run has {self.num_samples:,} in {self.size}: resume with the data and model that it was made with."
                )
            own = index % self.processes == self.rank
            self.rows[index[own] // self.processes] = stored["rows"][own].to(self.rows)
            self.valid.copy_(stored["valid"])
        self.whole = bool(self.valid.all())


def places(samples: Tensor, num_samples: int) -> Tensor:
    """Where each of all samples is among some: (n,) int64 -> (N,) int64, -1 for those that are not."""
    found = torch.full((num_samples,), -1, device=samples.device)
    found[samples] = torch.arange(len(samples), device=samples.device)
    return found


class _OwnCandidates(torch.autograd.Function):
    """Scores of each query with rows of its own, gathered piece by piece, forwards and again backwards: nothing of the size
    (B, K, D) is ever there. Several processes exchange queries, scores and their gradients, all of one batch."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, bank: MemoryBank, candidates: Tensor) -> Tensor:
        everyone = gather(queries.detach())  # (P * B, D)
        scores = everyone.new_empty(candidates.shape)
        for query, place, rows in bank.pieces(candidates):
            scores[query, place] = torch.bmm(rows, everyone[query].unsqueeze(-1)).squeeze(-1)
        ctx.bank, ctx.candidates = bank, candidates
        return own_part(total(scores)).clone() if bank.processes > 1 else scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        everyone = gather(gradient.contiguous())  # (P * B, K)
        queries = everyone.new_zeros(len(everyone), ctx.bank.size)
        for query, place, rows in ctx.bank.pieces(ctx.candidates):
            queries[query] += torch.bmm(everyone[query, place].unsqueeze(1), rows).squeeze(1)
        return own_part(total(queries)), None, None
