"""Negatives: which other x the critic is asked about for each y.

A sampler asks the critic and sorts its answers into what the bounds take: `positive` (B, L) and `negative` (B, 1, K), -inf where
masked. It never sees a loss. The positive is never among the negatives: Deep InfoMax (A.2) measured 1 to 2 per cent of accuracy.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import UsageError


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

    def __call__(self, critic: Callable[..., Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the positives (B, L) and of the negatives (B, 1, K) for x (B, L, C) and y (B, D)."""
        batch = len(y)
        self.require(batch)
        if self.num_negatives is None:
            return self._all_others(critic(x, y))
        shifts = torch.randperm(batch - 1, device=y.device)[: self.num_negatives] + 1  # (K,), never 0: not itself
        candidates = torch.cat([shifts.new_zeros(1), shifts]) + torch.arange(batch, device=y.device)[:, None]
        scores = critic(x, y, candidates % batch)  # (B, 1 + K, L), the positive first
        return scores[:, 0], scores[:, 1:].flatten(1).unsqueeze(1)

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
