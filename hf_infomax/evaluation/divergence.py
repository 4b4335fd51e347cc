"""Neural estimation of a divergence: statistic networks trained to maximise Donsker-Varadhan, judged on samples they never saw.

What MINE (`mine.py`) and the neural dependency measure (`ndm.py`) share. They differ in the two distributions that are told apart
and in the network, and agree in everything here.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_infomax.models.bounds import donsker_varadhan
from hf_infomax.models.errors import UsageError

from .features import location_and_scale, require_finite

#: How often in a run the network is judged on the validation samples; the best of these moments is kept.
CHECKS = 20
#: Share of the newest batch in the running mean of E[e^T] (MINE, sec. 3.2).
MOVING_RATE = 0.01
#: Rows scored at once outside of training.
CHUNK = 500

#: Means and deviations come from so many training samples at most: all images at once, in float32, would not fit the memory.
STATISTICS = 10_000

#: The tensors that a critic takes, each with as many rows: (n, ...).
Batch = tuple[Tensor, ...]
#: A run's random generator -> its training batches, without end.
Stream = Callable[[torch.Generator], Iterator[Batch]]


@dataclass(frozen=True)
class Estimate:
    """A divergence in nats, estimated by several statistic networks that differ in their seed alone.

    The spread is that of initialisation and draws: the samples, and which of them are held out, are the same for every run.
    """

    values: tuple[float, ...]  #: nats on held-out samples, one for each run
    training: tuple[float, ...]  #: nats on training samples, of the same networks: above `values` by what was memorised
    curve: dict[int, tuple[float, ...]]  #: step -> nats on the validation samples, by which the step is chosen

    @property
    def mean(self) -> float:
        """Nats, the mean over runs."""
        return fmean(self.values)

    @property
    def std(self) -> float:
        """Nats, the sample standard deviation over runs (n - 1); NaN of a single run, which has none."""
        return stdev(self.values) if len(self.values) > 1 else math.nan


class ParallelLinear(nn.Module):
    """R independent linear layers in one product, (R, n, F) -> (R, n, outputs), each initialised as nn.Linear is.

    Args:
        inputs, outputs: features.
        generators: one for each run; run r is drawn from its own alone.
        fan_in: what the initialisation is scaled by where this layer is a part of a wider one; None: `inputs`.
        bias: add one.

    >>> ParallelLinear(3, 2, [torch.Generator().manual_seed(seed) for seed in (0, 1)])(torch.randn(2, 5, 3)).shape
    torch.Size([2, 5, 2])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        generators: Sequence[torch.Generator],
        fan_in: int | None = None,
        bias: bool = True,
    ):
        super().__init__()
        scale = 1 / math.sqrt(fan_in or inputs)
        drawn = [torch.rand(inputs + bias, outputs, generator=g).mul(2).sub(1).mul(scale) for g in generators]
        weight, offset = torch.stack(drawn).split([inputs, int(bias)], dim=1)
        self.weight = nn.Parameter(weight.clone())  # (R, F, outputs)
        self.bias = nn.Parameter(offset.clone()) if bias else None  # (R, 1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(R, n, F) -> (R, n, outputs)."""
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class Standardise(nn.Module):
    """(..., F), uint8 included -> float32 of zero mean and unit variance by the statistics of a sample; constants become zero.

    Args:
        sample: (S, F).

    >>> Standardise(torch.tensor([[0.0, 5.0], [2.0, 5.0]]))(torch.tensor([[3.0, 9.0]]))
    tensor([[2., 0.]])
    """

    def __init__(self, sample: Tensor):
        super().__init__()
        mean, scale = location_and_scale(sample)  # (F,)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, float32."""
        return (x.float() - self.mean) * self.scale


class Split(NamedTuple):
    """Indices of samples, none of them twice."""

    training: Tensor
    validation: Tensor
    held_out: Tensor


def split(samples: dict[str, Tensor], held_out: float, seed: int) -> Split:
    """A random part to train on, one to choose the step by, and one as large as that to estimate on.

    Args:
        samples: name -> (N, F), row i of all from the same sample.
        held_out: the share of the last two together.
        seed: of the order.

    Raises:
        UsageError: the samples are no rows of vectors, as many of each; or too few, or not finite; or the share is none.
    """
    shapes = " and ".join(f"{name} {tuple(part.shape)}" for name, part in samples.items())
    count = min(map(len, samples.values()))
    if any(part.dim() != 2 or len(part) != count or part.shape[1] == 0 for part in samples.values()):
        raise UsageError(f"The samples are {shapes}: give one vector for each sample, as many of each.")
    if not 0 < held_out < 1:
        raise UsageError(f"held_out={held_out} of the samples: choose a share between 0 and 1, such as 0.2.")
    half = int(count * held_out / 2)
    if half < 2 or count - 2 * half < 2:
        raise UsageError(
            f"{count} samples do not split into training, validation and held-out ones, two or more of each: give more."
        )
    require_finite(**samples)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return Split(order[2 * half :], order[half : 2 * half], order[:half])


def require_counts(**settings: int) -> None:
    """Refuse a setting that counts something, by name, below 1.

    Raises:
        UsageError: one is.
    """
    for name, value in settings.items():
        if value < 1:
            raise UsageError(f"{name}={value}: choose 1 or more.")


def run_generators(seed: int, runs: int) -> list[torch.Generator]:
    """One for each run, of successive seeds: run r of many is the only run of seed + r."""
    return [torch.Generator().manual_seed(seed + run) for run in range(runs)]


def epochs(data: Callable[[Tensor], Batch], samples: int, batch_size: int) -> Stream:
    """Random batches of distinct samples, every sample once in an epoch; a last batch that is not full is left out.

    Distinct, since a sample that met its own copy among the negatives would be told from itself.

    Args:
        data: indices (n,) -> the batch of these samples.
        samples: how many there are.
        batch_size: at most so many rows, and at most all samples.

    Raises:
        UsageError: a batch of one has no other sample to be shuffled with.
    """
    if batch_size < 2:
        raise UsageError(f"batch_size={batch_size}: choose 2 or more, among which samples are re-paired.")

    def stream(generator: torch.Generator) -> Iterator[Batch]:
        size = min(batch_size, samples)
        while True:
            order = torch.randperm(samples, generator=generator)
            yield from map(data, order[: samples // size * size].split(size))

    return stream


@torch.no_grad()
def divergence(critic: nn.Module, batch: Batch, runs: int) -> Tensor:
    r"""Each run's Donsker-Varadhan value of a whole batch, in pieces of `CHUNK` rows -> (R,) nats, float32.

    .. math:: \hat D_{KL}(J \| M) = E_J[T] - \log E_M[e^T]

    The one logarithm is of the mean over all pieces.
    """
    pieces = zip(*(part.split(CHUNK) for part in batch), strict=True)
    scores = [critic(*(part.expand(runs, *part.shape) for part in piece)) for piece in pieces]
    positive, negative = (torch.cat(parts, dim=1) for parts in zip(*scores, strict=True))
    return torch.stack([donsker_varadhan(p, n) for p, n in zip(positive, negative, strict=True)])


def maximise(
    critic: nn.Module,
    stream: Stream,
    generators: Sequence[torch.Generator],
    training: Batch,
    validation: Batch,
    held_out: Batch,
    *,
    steps: int,
    learning_rate: float,
    moving_average: bool,
    progress: bool,
    label: str,
) -> Estimate:
    r"""Train R statistic networks at once, and estimate the divergence by each on samples that it never saw.

    .. math:: \hat D_{KL}(J \| M) = \max_T E_J[T] - \log E_M[e^T]

    Adam with a learning rate that falls to zero as a cosine. The gradients of the runs do not mix, so that each is what it is
    alone, up to rounding. `CHECKS` times, and at the start, the networks are judged on the validation samples; of each run the
    best is kept, since a network that goes on to memorise the training samples loses the bound on others.

    Args:
        critic: parameters with R runs in front; called with a batch of (R, n, ...) it gives the scores of n samples of the joint
            distribution, (R, n), and of K of the product for each, (R, n, K).
        stream: the training batches of a run, by its generator.
        generators: R of them, on the CPU.
        training, validation, held_out: (N, ...) each: to report the training value on, to choose the step by, to estimate on.
        steps: of the optimizer.
        learning_rate: the first.
        moving_average: take the gradient of the logarithm by a running mean (MINE, sec. 3.2).
        progress: show a bar, which goes away when it is done.
        label: of the bar.

    Returns:
        The estimates, in nats.

    Source: Donsker and Varadhan 1983; Belghazi et al. 2018, Mutual Information Neural Estimation, eq. 10 to 12, algorithm 1.
    """
    runs = len(generators)
    parameters = list(critic.parameters())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    streams = [stream(generator) for generator in generators]
    best = divergence(critic, validation, runs)  # (R,)
    kept = [parameter.detach().clone() for parameter in parameters]
    curve = {0: tuple(best.tolist())}
    running: Tensor | None = None  # (R,) E_M[e^T], in double precision, which holds e^T of scores up to 709
    for step in (bar := tqdm(range(1, steps + 1), desc=label, unit="step", leave=False, disable=not progress)):
        positive, negative = critic(*map(torch.stack, zip(*map(next, streams), strict=True)))
        if moving_average:
            mass = negative.detach().double().flatten(1).exp().mean(dim=1)  # (R,)
            running = mass if running is None else running.lerp(mass, MOVING_RATE)
        optimizer.zero_grad()
        means = [None] * runs if running is None else running
        bounds = [donsker_varadhan(*run) for run in zip(positive, negative, means, strict=True)]
        (-sum(bounds)).backward()  # no weight is shared: each run has its own gradient
        optimizer.step()
        schedule.step()
        if step * CHECKS // steps > (step - 1) * CHECKS // steps:
            found = divergence(critic, validation, runs)
            curve[step] = tuple(found.tolist())
            better = found > best
            best = found.where(better, best)
            for copy, parameter in zip(kept, parameters, strict=True):
                copy[better] = parameter.detach()[better]
            bar.set_postfix(nats=f"{best.mean().item():.3f}")
    with torch.no_grad():
        for parameter, copy in zip(parameters, kept, strict=True):
            parameter.copy_(copy)
    values, memorised = (tuple(divergence(critic, batch, runs).tolist()) for batch in (held_out, training))
    return Estimate(values, memorised, curve)
