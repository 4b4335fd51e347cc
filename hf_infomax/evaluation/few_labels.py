"""Few labels: how much of what a representation knows is read when 1, 10 or 100 samples of each class are labelled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from hf_infomax.models.errors import UsageError

from . import logistic
from .probes import check_strengths
from .splits import Problem, accuracy, classification

#: Parts of a cross-validation; classes with fewer labels have none, and `FIXED_STRENGTH`.
FOLDS = 5
FIXED_STRENGTH = 0.1


@dataclass(frozen=True)
class FewLabelsPoint:
    """A point of a few-label curve."""

    labels_per_class: int
    value: float  #: the mean test accuracy over the seeds, in [0, 1]
    std: float | None  #: over the seeds, with n - 1; None for a single one
    seeds: tuple[int, ...]
    values: tuple[float, ...]  #: of each seed


def draw_per_class(labels: Tensor, count: int, seed: int) -> Tensor:
    """The indices of `count` random samples of every class, in random order: (C * count,), the same for a seed on every device.

    A smaller count of the same seed draws a part of what a larger one draws.

    Raises:
        UsageError: a class has fewer samples, or the count is below 1.

    >>> labels = torch.tensor([0, 1, 0, 1, 0])
    >>> labels[draw_per_class(labels, 2, seed=0)].sort().values
    tensor([0, 0, 1, 1])
    """
    least = int(labels.unique(return_counts=True)[1].min())
    if not 1 <= count <= least:
        raise UsageError(f"{count} labels per class cannot be drawn: choose from 1 to {least}, the smallest class.")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    shuffled = labels[order]
    places = [(shuffled == label).nonzero().flatten()[:count] for label in labels.unique()]
    return order[torch.cat(places).sort().values]


def _folds(labels: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    split = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels.cpu(), labels.cpu())
    for fit, held in split:
        yield torch.from_numpy(fit).to(labels.device), torch.from_numpy(held).to(labels.device)


def _choose_strength(x: Tensor, labels: Tensor, classes: int, strengths: Sequence[float], seed: int) -> float:
    """The most accurate in cross-validation, and of equals the strongest."""
    scores = dict.fromkeys(sorted(strengths, reverse=True), 0.0)
    start = x.new_zeros(classes, x.shape[1] + 1)
    for fit, held in _folds(labels, seed):
        for strength in scores:
            solution = logistic.fit(x[fit], labels[fit], strength, start)
            # Counted by samples: of equal means over parts, rounding would choose.
            scores[strength] += round(len(held) * accuracy(logistic.predict(x[held], solution), labels[held]))
    return max(scores, key=scores.__getitem__)


def _accuracy_of_draw(problem: Problem, count: int, seed: int, strengths: Sequence[float]) -> float:
    drawn = draw_per_class(problem.labels, count, seed)
    # The weights of a few samples are a combination of these: in a basis of their span, (r, F), the same fit has r features.
    left, scale, basis = torch.linalg.svd(problem.train[drawn], full_matrices=False)
    x, labels, classes = left * scale, problem.labels[drawn], len(problem.classes)
    strength = _choose_strength(x, labels, classes, strengths, seed) if count >= FOLDS else FIXED_STRENGTH
    solution = logistic.fit(x, labels, strength, x.new_zeros(classes, x.shape[1] + 1))
    solution = torch.cat([solution[:, :-1] @ basis, solution[:, -1:]], dim=1)
    return problem.accuracy(logistic.predict(problem.test, solution))


def few_labels_curve(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    counts: Sequence[int] = (1, 10, 100),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    strengths: Sequence[float] = (1.0, 1e-1, 1e-2, 1e-3),
) -> list[FewLabelsPoint]:
    """Test accuracy of logistic regression on a few labelled samples of each class, over random draws.

    Features are standardised by all of the training split, whose labels that does not use. With 5 labels of each class and more,
    the strength is chosen by a stratified five-fold cross-validation among the drawn samples and refitted on all of them; with
    fewer there is nothing to choose by, and it is 0.1. The draws of a seed contain each other.

    Args:
        train_x, test_x: features, (N, F) and (M, F).
        train_y, test_y: integer classes, (N,) and (M,).
        counts: labels per class; those that the smallest class does not have are left out.
        seeds: a draw for each.
        strengths: L2 strengths to choose from, relative to the mean loss.

    Returns:
        A point for each count that the training split has, in their order.

    Raises:
        UsageError: the shapes do not fit, features are not finite, labels are not integers, there is only one class, no count fits,
            or there are no seeds.

    `linear_probe` fits the same model on all labels; `finetune` trains the encoder too.

    >>> x, y = torch.eye(3).repeat(20, 1), torch.arange(3).repeat(20)
    >>> [(point.labels_per_class, point.value) for point in few_labels_curve(x, y, x, y, seeds=(0, 1))]
    [(1, 1.0), (10, 1.0)]
    """
    check_strengths(strengths)
    if not seeds:
        raise UsageError("A few-label curve has no seeds: give one or more, such as seeds=(0, 1, 2).")
    problem = classification(train_x, train_y, test_x, test_y, least=2)
    largest = int(problem.labels.bincount().min())
    fitting = [count for count in counts if 1 <= count <= largest]
    if not fitting:
        raise UsageError(
            f"None of the counts {tuple(counts)} can be drawn: choose from 1 to {largest} labels per class."
        )
    points = []
    for count in fitting:
        values = tuple(_accuracy_of_draw(problem, count, seed, strengths) for seed in seeds)
        std = stdev(values) if len(values) > 1 else None
        points.append(FewLabelsPoint(count, fmean(values), std, tuple(seeds), values))
    return points
