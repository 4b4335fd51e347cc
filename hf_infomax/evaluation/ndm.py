"""The neural dependency measure: how far the factors of a representation are from independent of each other."""

import torch
from torch import Tensor, nn

from hf_infomax.models.errors import UsageError

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

#: Times that a sample to be judged on is shuffled: the mean of e^T over few shuffles is noisy, and there nothing is trained.
SHUFFLES = 10


class FactorCritic(nn.Module):
    """R networks T(y) of two hidden layers, asked about representations and about shuffled ones.

    Args:
        sample: (S, D), to standardise by.
        hidden: width of both hidden layers.
        generators: one for each run.
    """

    def __init__(self, sample: Tensor, hidden: int, generators: list[torch.Generator]):
        super().__init__()
        sizes = ((sample.shape[1], hidden), (hidden, hidden), (hidden, 1))
        first, second, third = (ParallelLinear(*size, generators) for size in sizes)
        self.layers = nn.Sequential(Standardise(sample), first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, joint: Tensor, product: Tensor) -> tuple[Tensor, Tensor]:
        """(R, n, D), (R, n, K, D) -> scores of the joint distribution (R, n), and of the product (R, n, K)."""
        return self.layers(joint).squeeze(-1), self.layers(product.flatten(1, 2)).view(product.shape[:3])


def shuffle_factors(y: Tensor, shuffles: int, generator: torch.Generator) -> Tensor:
    """Every factor permuted over the batch, independently of all others (Figure 11), `shuffles` times.

    Args:
        y: (n, D).
        shuffles: K.
        generator: of the permutations, on the CPU.

    Returns:
        (n, K, D), in which column d of every shuffle holds the values of column d of y.

    >>> y = torch.arange(6).view(3, 2)
    >>> shuffle_factors(y, 1, torch.Generator().manual_seed(0)).squeeze(1).sort(dim=0).values.equal(y)
    True
    """
    order = torch.rand(len(y), shuffles, y.shape[1], generator=generator).argsort(dim=0).to(y.device)  # (n, K, D)
    return y.unsqueeze(1).expand(-1, shuffles, -1).gather(0, order)


def neural_dependency(
    y: Tensor,
    *,
    sigmoid: bool = False,
    runs: int = 10,
    steps: int = 2000,
    batch_size: int = 256,
    hidden: int = 256,
    shuffles: int = 1,
    learning_rate: float = 1e-3,
    moving_average: bool = True,
    held_out: float = 0.2,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Estimate:
    r"""The neural dependency measure (NDM) of a representation: the divergence of its factors from independent ones.

    .. math:: \widehat{TC}(Y) = \max_T E_{p(y)}[T(y)] - \log E_{\prod_d p(y_d)}[e^{T(y)}]

    An estimate of the total correlation :math:`D_{KL}(p(y) \| \prod_d p(y_d))`, which is 0 for independent factors and grows with
    every dependence, linear or not. A sample of the product is a batch, each factor of which is shuffled on its own. How the
    samples are split and the networks trained is told at `mine`; and so is what limits the estimate, which is no less true here.

    A map of each factor alone that can be undone, such as the sigmoid, leaves the total correlation as it is. That Table 3 has two
    numbers, with and without, shows what a network finds in one scale or the other. Here both are standardised.

    Args:
        y: (N, D) floating point.
        sigmoid: pass the factors through a sigmoid first, as Table 3 does for Deep InfoMax, whose prior is of [0, 1].
        runs: independent networks, trained side by side; Figure 12 has ten.
        steps: of Adam, whose learning rate falls to zero.
        batch_size: samples in a step, and among which the factors are shuffled.
        hidden: width of the two hidden layers.
        shuffles: shuffled samples for each sample.
        learning_rate: the first.
        moving_average: correct the gradient's bias by a running mean of E[e^T] (Belghazi et al. 2018, sec. 3.2).
        held_out: share of the samples that are not trained on.
        seed: of the split and of the shuffles to be judged on, and of the first run; the others follow.
        device: where to compute; None: where y is.
        progress: show a bar, which goes away when it is done.

    Returns:
        The estimates in nats, one for each run.

    Raises:
        UsageError: there is one factor, or too few samples, or they are not finite; or a setting is out of range.

    Source: Hjelm et al. 2019, Learning deep representations by mutual information estimation and maximization, sec. 3.1 and A.5,
    Figures 11 and 12; after Brakel and Bengio 2017, Learning independent features with adversarial nets.

    >>> one, other = torch.randn(2, 400, 1, generator=torch.Generator().manual_seed(0))
    >>> twins = torch.cat([one, one + 0.1 * other], dim=1)
    >>> neural_dependency(twins, runs=2, steps=60, hidden=32, learning_rate=1e-2, progress=False).mean > 0.5
    True
    """
    require_counts(runs=runs, steps=steps, hidden=hidden, shuffles=shuffles)
    parts = split({"y": y}, held_out, seed)
    if y.shape[1] < 2:
        raise UsageError("A single factor depends on no other: give representations of two factors or more.")
    device = y.device if device is None else torch.device(device)
    generators = run_generators(seed, runs)
    y = (y.float().sigmoid() if sigmoid else y.float()).to(device)
    train = y[parts.training]
    critic = FactorCritic(train[:STATISTICS], hidden, generators).to(device)

    def stream(generator: torch.Generator):
        chosen = epochs(lambda indices: (train[indices],), len(train), batch_size)(generator)
        return ((joint, shuffle_factors(joint, shuffles, generator)) for (joint,) in chosen)

    judge = torch.Generator().manual_seed(seed)

    def judged(indices: Tensor) -> Batch:
        return y[indices], shuffle_factors(y[indices], SHUFFLES, judge)

    return maximise(
        critic,
        stream,
        generators,
        *map(judged, (parts.training[: len(parts.held_out)], parts.validation, parts.held_out)),
        steps=steps,
        learning_rate=learning_rate,
        moving_average=moving_average,
        progress=progress,
        label="ndm",
    )
