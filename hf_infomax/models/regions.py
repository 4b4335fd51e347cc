r"""Regions: the part of the data that the negatives of a sample are drawn from, by what a memory bank remembers.

InfoNCE draws them from the marginal p(y). VINCE (Wu et al. 2020, Corollary 4.1.1) draws them from
:math:`p(y \mid \tau \le f(y_1, y) \le \gamma)`, from what is like the positive y_1, but not too much like it:

| region | negatives of sample i | methods |
|---|---|---|
| `Marginal` | all other samples | IR, CMC |
| `Ball` | the background neighbours B_i, nearest to M[i] | BALL; LA, which takes the close ones among them for positives |
| `Ball`, without the close neighbours C_i | the annulus B_i \\ C_i | ANN |
| the same, annealed | a ball that begins as the marginal, close neighbours that begin as none | BALL+, ANN+ |

A region names samples and never sees a critic; what the critic says of them is `negatives.FromBank`'s to sort.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .bank import MemoryBank, places
from .errors import UsageError, choose
from .neighbors import CloseNeighbors
from .processes import gather, own_part, world
from .search import nearest

#: How far an annealed region is on its way, by the share of its time that has passed; both from 0 to 1.
ANNEALINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda time: time,
    "cosine": lambda time: (1 - math.cos(math.pi * time)) / 2,
    "step": lambda time: math.floor(4 * time) / 4,  # in quarters
}


# Where so many times as many rows are searched as are found, one matmul for all of them costs more than a gather of those found.
_SEARCHED_PER_FOUND = 32


@dataclass
class Candidates:
    """The samples that the images of a step are compared with.

    Args:
        index: (K,) int64 for samples that all share, or (B, K). An image's own sample may be among them and stands for none.
        everyone: (P * B, K), the index of the batches of all processes in their order, where rows are to be gathered by it.
        rows: (n, D), the rows that were searched, where the candidates are so many of them that all are scored at once.
        place: (B, K) int64, the candidates among those.
        close: (B, K) bool, those that are close neighbours of their image; None: nobody asked.
        marginal: (m,) int64, samples of the marginal, where `index` is of a smaller region; shared by all.
    """

    index: Tensor
    everyone: Tensor | None = None
    rows: Tensor | None = None
    place: Tensor | None = None
    close: Tensor | None = None
    marginal: Tensor | None = None

    def scores(self, bank: MemoryBank, queries: Tensor, some: slice) -> Tensor:
        """Dot products of queries (b, D) of `some` images with the candidates' rows in their bank, (b, K); a collective call."""
        if self.rows is not None:
            with torch.autocast(queries.device.type, enabled=False):
                return (queries.float() @ self.rows.T).gather(1, self.place[some])
        if self.everyone is None:
            return bank.scores(queries, self.index)
        return bank.scores(queries, self.everyone.unflatten(0, (world()[1], -1))[:, some].flatten(0, 1))


class Marginal:
    """All other samples alike: the negatives of InfoNCE, and of IR and CMC.

    Args:
        num_negatives: m, drawn anew for every step; the same samples for every bank.
        shared: one draw for the whole batch; see `draw`.
    """

    def __init__(self, num_negatives: int, shared: bool = False):
        self.num_negatives, self.shared = num_negatives, shared

    def require(self, num_samples: int) -> None:
        """A `UsageError` where the data is too small."""
        if not 1 <= self.num_negatives < num_samples:
            raise UsageError(
                f"num_negatives={self.num_negatives} other samples cannot be drawn from {num_samples:,}: "
                f"choose 1 to {num_samples - 1:,}."
            )

    def count(self, num_samples: int) -> int:
        """Negatives of each image."""
        return self.num_negatives

    def __call__(
        self,
        banks: Mapping[str, MemoryBank],
        sample_index: Tensor,
        generator: torch.Generator,
        epochs: float = 0.0,
        close: Mapping[str, CloseNeighbors] | None = None,
    ) -> dict[str, Candidates]:
        """View -> candidates in its bank, for the samples (B,) of this process' batch after so many epochs; a collective call."""
        num_samples = next(iter(banks.values())).num_samples
        index = draw(sample_index, self.num_negatives, num_samples, generator, self.shared)
        return dict.fromkeys(banks, Candidates(index) if self.shared else Candidates(own_part(index), index))


class Ball:
    r"""The samples nearest to M[i]: q_tau of VINCE, whose threshold tau is the similarity of the last of them.

    Where fewer negatives are wanted than a ball has, they are a sample of it: the m nearest out of a pool of m (N - 1) / size
    samples drawn from all. That is the m nearest of all where m is the size, and the marginal where the size is N - 1; the search
    costs what the pool does, and an annealed ball begins as cheap as the marginal.

    Args:
        size: of the ball: samples, or as a float their share of all others.
        num_negatives: m; None: the size, but at most 4,096 as in the paper.
        anneal: "linear", "cosine" or "step" (in quarters): the size falls from that of all data (BALL+), while the share of the
            close neighbours that counts grows from 0 (ANN+: early, what is near means little). The text names no direction for
            the latter.
        anneal_epochs: how long that takes.
    """

    def __init__(
        self,
        size: int | float = 4096,
        num_negatives: int | None = None,
        anneal: str | None = None,
        anneal_epochs: float = 0.0,
    ):
        self.size, self.num_negatives = size, num_negatives
        self.annealing = None if anneal is None else choose("anneal", anneal, ANNEALINGS)
        if anneal is not None and anneal_epochs <= 0:
            raise UsageError(f"anneal='{anneal}' needs anneal_epochs, the epochs that it takes: set it above 0.")
        self.anneal_epochs = anneal_epochs

    def require(self, num_samples: int) -> None:
        """A `UsageError` where the data is too small."""
        others, size = num_samples - 1, self.samples(num_samples)
        if not 1 <= size <= others:
            raise UsageError(
                f"ball_size={self.size} background neighbours cannot be found among {others:,} other samples: "
                f"choose 1 to {others:,}, or a share of them such as 0.1."
            )
        if self.num_negatives is not None and not 1 <= self.num_negatives <= size:
            raise UsageError(
                f"num_negatives={self.num_negatives} cannot be drawn from a ball of {size:,} samples: choose 1 to {size:,}, or a "
                "larger ball_size."
            )

    def count(self, num_samples: int) -> int:
        """Negatives of each image, before the close neighbours are taken out."""
        return self.num_negatives or min(4096, self.samples(num_samples))

    def samples(self, num_samples: int, progress: float = 1.0) -> int:
        """Size of the ball, in samples, when the annealing has come so far."""
        others = num_samples - 1
        size = round(self.size * others) if isinstance(self.size, float) else self.size
        return round(others + progress * (size - others))

    def progress(self, epochs: float) -> float:
        """How far the annealing is after so many epochs; 1 without any."""
        return 1.0 if self.annealing is None else self.annealing(min(max(epochs, 0.0) / self.anneal_epochs, 1.0))

    @torch.no_grad()
    def __call__(
        self,
        banks: Mapping[str, MemoryBank],
        sample_index: Tensor,
        generator: torch.Generator,
        epochs: float = 0.0,
        close: Mapping[str, CloseNeighbors] | None = None,
    ) -> dict[str, Candidates]:
        """As `Marginal`; with `close`, the candidates that are close neighbours are marked."""
        num_samples, progress = next(iter(banks.values())).num_samples, self.progress(epochs)
        count, device = self.count(num_samples), generator.device
        marginal = torch.randint(num_samples, (count,), generator=generator, device=device)
        # One of the pool is left out: the image itself, or where it is not among them another by chance.
        pool = math.ceil(count * (num_samples - 1) / self.samples(num_samples, progress)) + 1
        everyone = left_out = gather(sample_index)
        searched = None
        if pool < num_samples:
            searched = torch.randperm(num_samples, generator=generator, device=device)[:pool]
            left_out = everyone.where(torch.isin(everyone, searched), searched[-1])
        find = _among if min(pool, num_samples) <= _SEARCHED_PER_FOUND * count else _in_shards
        candidates = {view: find(bank, everyone, left_out, count, searched) for view, bank in banks.items()}
        for view, found in candidates.items():
            found.marginal = marginal
            found.close = None if close is None else close[view].among(sample_index, found.index, progress)
        return candidates


def _among(bank: MemoryBank, everyone: Tensor, left_out: Tensor, count: int, searched: Tensor | None) -> Candidates:
    """The nearest to each sample's row out of rows that every process looks up, and scores again."""
    searched = torch.arange(bank.num_samples, device=everyone.device) if searched is None else searched
    searched = searched if bank.whole else searched[bank.valid[searched]]
    if not len(searched):
        return _in_shards(bank, everyone, left_out, count, searched)
    rows, own, sample_index = bank.lookup(searched), own_part(bank.lookup(everyone)), own_part(everyone)
    left_out = places(searched, bank.num_samples)[own_part(left_out)]
    scores, place = nearest(own, rows, min(count, len(rows)), left_out)
    index = searched[place].where(scores.isfinite(), sample_index.unsqueeze(1))  # where there are not so many: none
    return Candidates(index, rows=rows, place=place)


def _in_shards(bank: MemoryBank, everyone: Tensor, left_out: Tensor, count: int, searched: Tensor | None) -> Candidates:
    """The same, where rows are so many that each process searches its own."""
    scores, index = bank.nearest(bank.lookup(everyone), count, left_out, searched)
    index = index.where(scores.isfinite(), everyone.unsqueeze(1))
    return Candidates(own_part(index), index)


Region = Marginal | Ball


def draw(
    sample_index: Tensor, num_negatives: int, num_samples: int, generator: torch.Generator, shared: bool = False
) -> Tensor:
    """Samples drawn uniformly, with replacement, from all but an image's own: NCE's noise, and CMC's negatives.

    Args:
        sample_index: (B,) int64, of this process' batch.
        num_negatives: m.
        num_samples: N.
        generator: in the same state on all processes.
        shared: one draw for all images of the step, one matmul instead of a gather for each: much the faster, as
            `training/benchmark.py` tells, at the price of errors that the images of a batch have in common. An image's own sample
            may be among them and is masked by whoever scores.

    Returns:
        (m,) where shared, else (P * B, m), those of all processes; the same on each.
    """
    device = generator.device
    if shared:
        return torch.randint(num_samples, (num_negatives,), generator=generator, device=device)
    own = gather(sample_index).unsqueeze(-1)  # (P * B, 1)
    others = torch.randint(num_samples - 1, (len(own), num_negatives), generator=generator, device=device)
    return others + (others >= own)  # what comes after the image itself moves up by one
