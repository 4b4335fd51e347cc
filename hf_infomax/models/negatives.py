"""Negatives: which other x the critic is asked about for each y.

A sampler asks the critic and sorts its answers into what the bounds take: `positive` (B, L) and `negative` (B, 1, K), -inf where
masked. It never sees a loss. The positive is never among the negatives: Deep InfoMax (A.2) measured 1 to 2 per cent of accuracy.
Where views can be missing, `rows` (B,) bool names the images that take part, and the scores are theirs alone.

| sampler | the negatives of a y are | K |
|---|---|---|
| `InBatch` | the other images of the batch, encoded in this step | (B - 1) L, or fewer |
| `FromBank` | samples of the whole data, as a memory bank remembers them | any number up to N - 1 |
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .bank import MemoryBank
from .errors import UsageError
from .processes import gather, own_part


class InBatch:
    """The other images of the batch, every location of each a negative.

    Args:
        num_negatives: how many other images each y is compared with, each lending all of its L features (Figure 8 of Deep
            InfoMax counts so: its 0 = log2(1) is one negative for each positive). None: all B - 1. Fewer are drawn at
            random as cyclic shifts of the batch, so that every image serves equally often.

    Raises:
        UsageError: the batch holds one image, or fewer others than `num_negatives`.

    >>> import torch, hf_infomax
    >>> critic = hf_infomax.critics.Cosine()
    >>> positive, negative = InBatch()(critic, torch.randn(8, 16, 32), torch.randn(8, 32))
    >>> positive.shape, negative.shape
    (torch.Size([8, 16]), torch.Size([8, 1, 128]))
    """

    def __init__(self, num_negatives: int | None = None):
        self.num_negatives = num_negatives

    def __call__(
        self, critic: Callable[..., Tensor], x: Tensor, y: Tensor, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores of the positives (B, L) and of the negatives (B, 1, K) for x (B, L, C) and y (B, D)."""
        if rows is not None:
            x, y = x[rows], y[rows]
        batch = len(y)
        self.require(batch)
        if self.num_negatives is None:
            return self._all_others(critic(x, y))
        shifts = torch.randperm(batch - 1, device=y.device)[: self.num_negatives] + 1  # (K,), never 0: not itself
        candidates = torch.cat([shifts.new_zeros(1), shifts]) + torch.arange(batch, device=y.device)[:, None]
        scores = critic(x, y, candidates % batch)  # (B, 1 + K, L), the positive first
        return scores[:, 0], scores[:, 1:].flatten(1).unsqueeze(1)

    @property
    def least(self) -> int:
        """Images that a batch must have."""
        return 1 + (self.num_negatives or 1)

    def require(self, batch: int) -> None:
        """Refuse a batch that cannot lend the negatives; models ask before they encode, since batch norm fails less clearly."""
        if batch < 2:
            raise UsageError("A batch of one image holds no negatives for the bound: use a batch size of at least 2.")
        if self.num_negatives is not None and not 1 <= self.num_negatives < batch:
            raise UsageError(
                f"num_negatives={self.num_negatives} other images cannot be drawn from a batch of {batch}: "
                f"choose 1 to {batch - 1}, or none for all."
            )

    @staticmethod
    def _all_others(scores: Tensor) -> tuple[Tensor, Tensor]:
        """Split scores of all pairs (B, B, L): the diagonal is positive, the rest negative."""
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        positive = scores.diagonal().T  # (B, L)
        negative = scores.masked_fill(own.unsqueeze(-1), -torch.inf)  # (B, B, L)
        return positive, negative.flatten(1).unsqueeze(1)


class FromBank:
    """Samples of the whole data, by what a memory bank remembers of them: one step's draw, for one bank.

    Args:
        bank: of the view that x is.
        sample_index: (B,) int64, the batch's places in the data.
        candidates: what `draw` gave.
        positive: "bank" takes the positive from the bank too, as CMC's authors do: x of one marginal alone, a little stale.
            "batch" takes this step's x, so that a gradient reaches its encoder from here as well.

    >>> import torch, hf_infomax
    >>> bank, index = MemoryBank(100, 32), torch.arange(8)
    >>> candidates = draw(index, num_negatives=50, num_samples=100, generator=torch.Generator())
    >>> ask = FromBank(bank, index, candidates)
    >>> positive, negative = ask(hf_infomax.critics.Cosine(), torch.randn(8, 1, 32), torch.randn(8, 32))
    >>> positive.shape, negative.shape
    (torch.Size([8, 1]), torch.Size([8, 1, 50]))
    """

    def __init__(self, bank: MemoryBank, sample_index: Tensor, candidates: Tensor, positive: str = "bank"):
        self.bank, self.sample_index, self.candidates, self.positive = bank, sample_index, candidates, positive

    def __call__(
        self, critic: Callable[..., Tensor], x: Tensor, y: Tensor, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores of the positives (B, 1) and of the negatives (B, 1, K) for x (B, 1, C) and y (B, D), by a critic that is a dot
        product."""
        queries = critic.embed_y(y)  # (B, D)
        negative = self.bank.scores(queries, self.candidates)  # (B, K)
        if self.candidates.dim() == 1:  # drawn for all: an image's own row may be among them
            negative = negative.masked_fill(self.candidates == self.sample_index[:, None], -torch.inf)
        own = critic.embed_x(x).squeeze(1) if self.positive == "batch" else self._own_rows()
        positive = (queries * own).sum(dim=-1, keepdim=True)  # (B, 1)
        if rows is not None:  # only now: all processes had to score the same number
            positive, negative = positive[rows], negative[rows]
        return positive, negative.unsqueeze(1)

    def _own_rows(self) -> Tensor:
        return own_part(self.bank.lookup(gather(self.sample_index)))


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
