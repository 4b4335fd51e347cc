"""MINE: how much mutual information a representation keeps of its input, by a network trained to tell pairs from strangers."""

import torch
from torch import Tensor, nn

from .divergence import (
    STATISTICS,
    Batch,
    Estimate,
    ParallelLinear,
    Standardise,
    epochs,
    maximise,
    require_counts,
    run_generators,
    split,
)
from .features import to_unit_range


class PairCritic(nn.Module):
    r"""R concat networks T(x, y) of two hidden layers, asked about each pair and about K strangers for it.

    .. math:: T(x, y) = w^\top \mathrm{relu}(V \mathrm{relu}(W_x x + W_y y + b))

    Table 5 of Deep InfoMax. The first layer of [x, y] is a sum, so that each x passes through W_x, the cost where x is an image,
    once for all its pairs. The strangers of row i are y of the K rows after it, in a batch of random order: a sample of
    the product of marginals in which nobody meets his own partner.

    Args:
        x, y: a sample of each, (S, F) and (S, D), to standardise by.
        hidden: width of both hidden layers.
        negatives: K.
        generators: one for each run.
    """

    def __init__(self, x: Tensor, y: Tensor, hidden: int, negatives: int, generators: list[torch.Generator]):
        super().__init__()
        inputs = x.shape[1] + y.shape[1]
        self.normalise_x, self.normalise_y = Standardise(x), Standardise(y)
        self.embed_x = ParallelLinear(x.shape[1], hidden, generators, fan_in=inputs)
        self.embed_y = ParallelLinear(y.shape[1], hidden, generators, fan_in=inputs, bias=False)
        self.hidden = ParallelLinear(hidden, hidden, generators)
        self.output = ParallelLinear(hidden, 1, generators)
        self.negatives = negatives

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(R, n, F), (R, n, D) -> scores of the pairs (R, n), and of strangers (R, n, K)."""
        rows = torch.arange(x.shape[1], device=x.device)
        # All others where a batch has no more than K of them.
        offsets = torch.arange(min(self.negatives + 1, len(rows)), device=x.device)
        partners = (rows.unsqueeze(1) + offsets) % len(rows)  # (n, K + 1), the first its own
        embedded = self.embed_y(self.normalise_y(y))[:, partners]  # (R, n, K + 1, H)
        first = (self.embed_x(self.normalise_x(x)).unsqueeze(2) + embedded).relu().flatten(1, 2)
        scores = self.output(self.hidden(first).relu()).view(*x.shape[:2], -1)  # (R, n, K + 1)
        return scores[..., 0], scores[..., 1:]


def mine(
    x: Tensor,
    y: Tensor,
    *,
    runs: int = 5,
    steps: int = 2000,
    batch_size: int = 256,
    hidden: int = 256,
    negatives: int = 4,
    learning_rate: float = 1e-3,
    moving_average: bool = True,
    held_out: float = 0.2,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Estimate:
    r"""The mutual information neural estimate of I(X; Y): Donsker-Varadhan between pairs and re-paired samples.

    .. math:: \hat I(X; Y) = \max_T E_{p(x, y)}[T(x, y)] - \log E_{p(x) p(y)}[e^{T(x, y)}]

    Deep InfoMax eq. 2, with x the input of an encoder and y its representation: Table 3's column I(X, Y). The samples are split at
    random, the same for all runs: networks are trained on one part, the best step is chosen on half of what is held out, and the
    estimate is that of the other half. Images are flattened; every input is standardised by the training part's statistics.

    What limits it:

    - E[e^T] is a mean of finitely many numbers, of which few carry the most once T is large: its variance grows as e^I, and no
      estimator that promises a lower bound with confidence can certify more than about the logarithm of the number of samples
      (McAllester and Stratos 2020). Nor is the held-out value a lower bound in expectation: the logarithm of a sample mean lies
      below that of the mean, by little where e^I is far below the number of samples, so that it may exceed the truth.
    - For a deterministic encoder of continuous inputs I(X; Y) is infinite. What is measured is how much of it a network of this
      size finds from so many samples: a number to compare representations by, at equal settings, not a property of one.
    - `training` of the result is what the same networks say of the samples that they were trained on. Values far above
      the logarithm of the number of samples, such as Table 3's 45 to 102 nats, can only be of that kind.

    Args:
        x: (N, F) floating point, or images (N, 3, H, W), uint8 or floating point in [0, 1].
        y: (N, D) floating point, row i of both from the same sample.
        runs: independent networks, trained side by side.
        steps: of Adam, whose learning rate falls to zero.
        batch_size: pairs in a step, at least two.
        hidden: width of the two hidden layers; the paper has 512.
        negatives: strangers for each pair; they cost the second layer alone.
        learning_rate: the first.
        moving_average: correct the gradient's bias by a running mean of E[e^T] (Belghazi et al. 2018, sec. 3.2).
        held_out: share of the samples that are not trained on.
        seed: of the split, and of the first run; the others follow.
        device: where to compute; None: where x is. A batch is moved at a time.
        progress: show a bar, which goes away when it is done.

    Returns:
        The estimates in nats, one for each run.

    Raises:
        UsageError: x and y do not fit, are too few, or are not finite; or a setting is out of range.

    Source: Belghazi et al. 2018, Mutual Information Neural Estimation; Hjelm et al. 2019, sec. 4.1, Tables 3 and 5.

    Its sibling `paired_information` is an InfoNCE, which has a ceiling, the logarithm of the number of samples, and little
    variance. `neural_dependency` asks the same of the factors of y among themselves.

    >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    >>> mine(x, x > 0, steps=60, hidden=32, learning_rate=1e-2, progress=False).mean > 0.5  # the truth: 2 log 2 = 1.39
    True
    """
    if x.dim() == 4:
        to_unit_range(x[:1])  # refuses what is not an image
        x = x.flatten(1)
    require_counts(runs=runs, steps=steps, hidden=hidden, negatives=negatives)
    parts = split({"x": x, "y": y}, held_out, seed)
    device = x.device if device is None else torch.device(device)
    generators = run_generators(seed, runs)
    sample = parts.training[:STATISTICS]
    critic = PairCritic(x[sample], y[sample], hidden, negatives, generators).to(device)

    def pairs(indices: Tensor) -> Batch:
        return x[indices.to(x.device)].to(device), y[indices.to(y.device)].to(device)

    return maximise(
        critic,
        epochs(lambda chosen: pairs(parts.training[chosen]), len(parts.training), batch_size),
        generators,
        *map(pairs, (parts.training[: len(parts.held_out)], parts.validation, parts.held_out)),
        steps=steps,
        learning_rate=learning_rate,
        moving_average=moving_average,
        progress=progress,
        label="mine",
    )
