"""Negatives: which other x the critic is asked about for each y.

A sampler asks the critic and sorts its answers into what the bounds take: `positive` (B, L) and `negative` (B, 1, K), -inf where
masked. It never sees a loss. The positive is never among the negatives: Deep InfoMax (A.2) measured 1 to 2 per cent of accuracy.
Where views can be missing, `rows` (B,) bool names the images that take part, and the scores are theirs alone.

| sampler | the negatives of a y are | K |
|---|---|---|
| `InBatch` | the other images of the batch, encoded in this step by all of P processes | (P B - 1) L, or fewer |
| `FromBank` | samples of a region of the whole data, as a memory bank remembers them | any number up to N - 1 |
| `FromQueue` | the images of the last batches, as a momentum copy encoded them | what the queue holds |
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .bank import MemoryBank
from .bounds import infonce, unmasked
from .critics import Critic
from .errors import UsageError
from .key_queue import KeyQueue
from .processes import gather, gather_with_gradient, own_part, world
from .regions import Candidates


class InBatch:
    """The other images of the batch, every location of each a negative.

    The batch is that of all P processes, as many images of each: what the critic has embedded of x travels, with its gradient, and
    each process scores its own y against all. So InfoNCE and the Jensen-Shannon bound, which are means over anchors, have the loss
    and the gradient, averaged over processes, that one process has with all the images. Donsker-Varadhan takes one logarithm of
    the own anchors against all images in each process; the mean of such logarithms is below the one of all, the bound above.

    Args:
        num_negatives: how many other images each y is compared with, each lending all of its L features (Figure 8 of Deep
            InfoMax counts so: its 0 = log2(1) is one negative for each positive). None: all P B - 1. Fewer are drawn at
            random as cyclic shifts of the batch, the same on all processes, so that every image serves equally often.

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

    def __call__(self, critic: Critic, x: Tensor, y: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores of the positives (B, L) and of the negatives (B, 1, K) for x (B, L, C) and y (B, D) of this process.

        A collective call, forwards and backwards: a process without `rows` gets scores of no anchor, and keeps them in its graph.
        Nobody has an anchor where too few images of all processes take part.
        """
        if rows is None:
            self.require(len(y))
        x = gather_with_gradient(critic.embed_x(x))  # (P * B, L, U)
        first = world()[0] * len(y)  # among them, this process' first
        if rows is not None:
            everyone = gather(rows)  # (P * B,)
            x, y, first = x[everyone], y[rows], int(everyone[:first].sum())
            y = y if len(x) >= self._least else y[:0]
        if self.num_negatives is None:
            return self._all_others(critic.compare(x, y), first)
        own = torch.arange(first, first + len(y), device=y.device)
        scores = critic.compare(x, y, self._candidates(own, len(x)))  # (B, 1 + K, L), the positive first
        return scores[:, 0], scores[:, 1:].flatten(1).unsqueeze(1)

    @property
    def _least(self) -> int:
        """Images that a batch must have."""
        return 1 + (self.num_negatives or 1)

    def require(self, batch: int) -> None:
        """Refuse a batch, this process' part of it, that cannot lend the negatives; models ask before they encode, since batch norm
        fails less clearly."""
        batch *= world()[1]
        if batch < 2:
            raise UsageError("A batch of one image holds no negatives for the bound: use a batch size of at least 2.")
        if self.num_negatives is not None and not 1 <= self.num_negatives < batch:
            raise UsageError(
                f"num_negatives={self.num_negatives} other images cannot be drawn from a batch of {batch}: "
                f"choose 1 to {batch - 1}, or none for all."
            )

    def _candidates(self, own: Tensor, batch: int) -> Tensor:
        """Each own image, its place (B,) in the batch of all, and the images that it is compared with: (B, 1 + K)."""
        shifts = 1 + torch.randperm(max(batch - 1, 0), device=own.device)  # never 0: not itself
        shifts = gather(shifts)[: len(shifts)][: self.num_negatives]  # (K,), those of the first process
        return (own.unsqueeze(1) + torch.cat([shifts.new_zeros(1), shifts])) % max(batch, 1)

    @staticmethod
    def _all_others(scores: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Split scores of all pairs (B, P * B, L): the diagonal that begins at the own first image is positive, the rest
        negative."""
        places = torch.arange(scores.shape[1], device=scores.device) - first
        own = torch.arange(len(scores), device=scores.device).unsqueeze(1) == places  # (B, P * B)
        positive = scores.diagonal(first).T  # (B, L)
        negative = scores.masked_fill(own.unsqueeze(-1), -torch.inf)  # (B, P * B, L)
        return positive, negative.flatten(1).unsqueeze(1)


class FromBank:
    """Samples of the whole data, by what a memory bank remembers of them: one step's candidates, in one bank.

    Args:
        bank: of the view that x is.
        sample_index: (B,) int64, the batch's places in the data.
        candidates: what a region gave (`regions.Marginal`, `regions.Ball`).
        positive: "bank" takes the positive from the bank too, as CMC's authors do: x of one marginal alone, a little stale.
            "batch" takes this step's x, so that a gradient reaches its encoder from here as well.
        close_positive: what close neighbours are where they are marked: further positives (LA), or neither positive nor negative
            (ANN, the annulus).

    >>> import torch, hf_infomax
    >>> from hf_infomax.models.regions import Ball
    >>> bank, index = MemoryBank(100, 32), torch.arange(8)
    >>> candidates = Ball(size=50)({"RGB": bank}, index, torch.Generator())["RGB"]
    >>> positive, negative = FromBank(bank, index, candidates)(
    ...     hf_infomax.critics.Cosine(), torch.randn(8, 1, 32), torch.randn(8, 32)
    ... )
    >>> positive.shape, negative.shape
    (torch.Size([8, 1]), torch.Size([8, 1, 50]))
    """

    def __init__(
        self,
        bank: MemoryBank,
        sample_index: Tensor,
        candidates: Candidates,
        positive: str = "bank",
        close_positive: bool = False,
    ):
        self.bank, self.sample_index, self.candidates = bank, sample_index, candidates
        self.positive, self.close_positive = positive, close_positive

    def __call__(
        self, critic: Callable[..., Tensor], x: Tensor | None, y: Tensor, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores of the positives (B, P) and of the negatives (B, 1, K), for x (B, 1, C) and y (B, D).

        P is 1, or 1 + K with close neighbours for positives: the image's own, and -inf for each candidate that is not close. x is
        looked at where `positive` says so alone.
        """
        own = self.own_rows() if self.positive == "bank" else F.normalize(x.squeeze(1).float(), dim=-1)
        positive = aligned(critic, own, y)  # (B, 1)
        negative = self._scores(critic, y)  # (B, K)
        close = self.candidates.close
        if close is not None:
            if self.close_positive:
                positive = torch.cat([positive, negative.masked_fill(~close, -torch.inf)], dim=1)  # (B, 1 + K)
            negative = negative.masked_fill(close, -torch.inf)
        if rows is not None:  # only now: all processes had to score the same number
            positive, negative = positive[rows], negative[rows]
        if close is not None:
            self._require_some(negative)
        return positive, negative.unsqueeze(1)

    @torch.no_grad()
    def told(
        self, critic: Callable[..., Tensor], y: Tensor, positive: Tensor, negative: Tensor, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        r"""What is worth knowing of a region, for y (B, D) and the scores (B', P) and (B', 1, K) of it; scalars, a collective call.

        `infonce`: the bound of the same critic with negatives of the marginal. `vince_holds`: the share of images for which the
        condition of Corollary 4.1.1 holds, :math:`\tau > \log E_{p(y)} e^{f(y_1, y)}`, where y_1 is the image's own row and tau the
        lowest score of its candidates; at most 32 images are looked at. `vince_below`: the share of those whose candidates have the
        larger mean of :math:`e^{f(x, y)}`, which is what puts VINCE below InfoNCE. The corollary's proof takes the first for the
        second; `examples/vince_gaussian.py` has a case in which the first is true, the second is not, and VINCE is above the truth.
        """
        rows = torch.ones_like(self.sample_index, dtype=torch.bool) if rows is None else rows
        at_large = FromBank(self.bank, self.sample_index, Candidates(self.candidates.marginal))
        own, some = self.own_rows(), slice(0, 32)
        ball = self._scores(critic, own[some], some)
        if self.candidates.close is not None:
            ball = ball.masked_fill(self.candidates.close[some], -torch.inf)
        tau = ball.masked_fill(ball.isneginf(), torch.inf).amin(dim=1)
        holds = tau > log_mean_exp(at_large._scores(critic, own[some], some))
        whole = at_large._scores(critic, y)[rows]
        below = log_mean_exp(negative.squeeze(1)) > log_mean_exp(whole)
        return {
            "infonce": infonce(positive[:, :1], whole.unsqueeze(1)),
            "vince_holds": holds[rows[some]].float().mean().nan_to_num(),  # of nobody: 0
            "vince_below": below.float().mean(),
        }

    def own_rows(self) -> Tensor:
        """What the bank remembers of the batch itself, (B, D)."""
        return own_part(self.bank.lookup(gather(self.sample_index)))

    def _scores(self, critic: Callable[..., Tensor], y: Tensor, some: slice = slice(None)) -> Tensor:
        """Scores (b, K) of the candidates of `some` images, -inf for an image's own sample and for what has no row."""
        index = self.candidates.index if self.candidates.index.dim() == 1 else self.candidates.index[some]
        if critic.dot_product:
            scores = self.candidates.scores(self.bank, critic.embed_y(y), some)
        else:  # a network for each pair, on rows that are looked up once: all, where processes ask about different ones
            shared = index.dim() == 1
            places = torch.arange(len(index) if shared else self.bank.num_samples, device=index.device)
            rows = self.bank.lookup(index if shared else places).unsqueeze(1)
            scores = critic(rows, y, (places if shared else index).expand(len(y), -1)).squeeze(-1)
            scores = scores.masked_fill(~self.bank.valid[index], -torch.inf)
        return scores.masked_fill(index == self.sample_index[some, None], -torch.inf)

    def _require_some(self, negative: Tensor) -> None:
        counts = unmasked(negative)
        if len(counts) and not counts.amin():
            raise UsageError(
                f"All {negative.shape[-1]:,} background neighbours of an image are its close neighbours, no negatives are left: "
                "raise model.ball_size, or make the neighbourhoods smaller by model.num_clusters or model.num_neighbors."
            )


class FromQueue:
    """The keys of the last batches, as a momentum copy encoded them: one step's view of a queue.

    The negatives are all keys that there are, the same for all anchors, but those of an anchor's own image. The positive is x, the
    key of this step, which goes into the queue after it.

    Args:
        queue: of the view that x is.
        sample_index: (B,) int64, the batch's places in the data; None where they have none.

    >>> import torch, hf_infomax
    >>> queue = KeyQueue(20, 32)
    >>> queue.enqueue(torch.randn(20, 32))
    >>> positive, negative = FromQueue(queue)(hf_infomax.critics.Cosine(), torch.randn(8, 1, 32), torch.randn(8, 32))
    >>> positive.shape, negative.shape
    (torch.Size([8, 1]), torch.Size([8, 1, 20]))
    """

    def __init__(self, queue: KeyQueue, sample_index: Tensor | None = None):
        self.queue, self.sample_index = queue, sample_index

    def __call__(self, critic: Callable[..., Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the positives (B, 1) and of the negatives (B, 1, K) for x (B, 1, C) and y (B, D)."""
        positive = aligned(critic, F.normalize(x.squeeze(1).float(), dim=-1), y)  # (B, 1)
        if critic.dot_product:
            negative = self.queue.scores(critic.embed_y(y), self.sample_index)  # (B, K)
        else:
            rows = self.queue.rows[: self.queue.filled].unsqueeze(1)  # (K, 1, D)
            negative = self.queue.without_own(critic(rows, y).squeeze(-1), self.sample_index)
        return positive, negative.unsqueeze(1)


def log_mean_exp(scores: Tensor) -> Tensor:
    """log of the mean of e^s over the unmasked scores of each row, (B, K) -> (B,)."""
    return scores.logsumexp(dim=1) - unmasked(scores).log()


def aligned(critic: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Scores of each y (B, D) with its own x (B, C) alone, which is of unit length as a bank's rows are, (B, 1)."""
    if critic.dot_product:
        return (critic.embed_y(y) * x).sum(dim=-1, keepdim=True)
    return critic(x.unsqueeze(1), y, torch.arange(len(y), device=y.device).unsqueeze(1)).squeeze(-1)
