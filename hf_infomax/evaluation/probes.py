"""Linear probes: what a linear model reads from frozen features, its regularisation chosen without the test split."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from sklearn.metrics import r2_score
from torch import Tensor

from hf_infomax.models.errors import UsageError

from . import logistic
from .features import require_finite
from .lbfgs import second_moments
from .ridge import Moments, Samples, statistics
from .splits import accuracy, check_features, classification, hold_out, standardise


@dataclass(frozen=True)
class ProbeResult:
    """A probe's one number on the test split, and how it came about."""

    value: float  #: the metric on the test split
    metric: str  #: "accuracy", a fraction in [0, 1], or "r2", at most 1
    strength: float | None = None  #: the chosen L2 strength; None of a probe that chooses none
    #: strength -> the metric on the held-out tenth of the training split
    validation: dict[float, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  #: what else the number depends on, by name


def check_strengths(strengths: Sequence[float]) -> None:
    """Refuse to choose among no strengths, or such as do not regularise.

    Raises:
        UsageError: there is none, or one is not above 0.
    """
    if not strengths or min(strengths) <= 0:
        raise UsageError(f"The strengths of a probe are {tuple(strengths)}: give one or more, all above 0.")


def from_strong_to_weak(
    strengths: Sequence[float],
    fit: Callable[[float, Tensor], Tensor],
    start: Tensor,
    held_x: Tensor,
    held_y: Tensor,
) -> tuple[dict[float, float], dict[float, Tensor]]:
    """Fit one strength after the other, each from the last one's solution, and ask each of held-out samples.

    The weakest take longest and are seldom the best: the search ends at a strength that is worse than the best by more than two
    standard errors of an accuracy of so many samples.

    Returns:
        Strength -> accuracy, and strength -> solution, of those that were fitted, from strong to weak.
    """
    validation: dict[float, float] = {}
    solutions: dict[float, Tensor] = {}
    for strength in sorted(strengths, reverse=True):
        start = solutions[strength] = fit(strength, start)
        found = validation[strength] = accuracy(logistic.predict(held_x, start), held_y)
        best = max(validation.values())
        if best - found > 2 * math.sqrt(best * (1 - best) / len(held_y)):
            break
    return validation, solutions


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    seed: int = 0,
    strengths: Sequence[float] = (1.0, 1e-1, 1e-2, 1e-3),
    max_iter: int = 100,
) -> ProbeResult:
    """Test accuracy of multinomial logistic regression on standardised features.

    It minimises

        mean_i -log softmax(W x_i + b)[y_i]  +  strength / 2 |W|^2

    by `logistic.fit`. The strengths are fitted on nine tenths of the training split, from strong to weak, until one is clearly
    worse than the best; the most accurate on the held-out tenth (of equals the strongest) is refitted on
    all of the training split and tested once. The test split plays no part before that.

    Args:
        train_x, test_x: features, (N, F) and (M, F).
        train_y, test_y: integer classes, (N,) and (M,).
        seed: which tenth is held out.
        strengths: L2 strengths to choose from, relative to the mean loss, so that they do not depend on N.
        max_iter: of each fit.

    Returns:
        Metric "accuracy", in [0, 1].

    Raises:
        UsageError: the shapes do not fit, a split is too small, features are not finite, labels are not integers, or there is
            only one class.

    `svm_probe` is its sibling with the hinge loss, `linear_regression_probe` the one for real-valued targets; `knn_probe`
    needs no fit.

    >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    >>> linear_probe(x[:150], (x[:150, 0] > 0).long(), x[150:], (x[150:, 0] > 0).long()).value > 0.9
    True
    """
    check_strengths(strengths)
    problem = classification(train_x, train_y, test_x, test_y)
    train, labels = problem.train, problem.labels
    fit, held = hold_out(len(train), seed, train.device)

    fit_x = train[fit]
    moments = second_moments(fit_x)

    def fitted(strength: float, start: Tensor) -> Tensor:
        return logistic.fit(fit_x, labels[fit], strength, start, max_iter, moments=moments)

    start = train.new_zeros(len(problem.classes), train.shape[1] + 1)
    validation, solutions = from_strong_to_weak(strengths, fitted, start, train[held], labels[held])
    chosen = max(validation, key=validation.__getitem__)  # the first of equals, which is the strongest
    solution = logistic.fit(train, labels, chosen, solutions[chosen], max_iter, moments=moments)
    value = problem.accuracy(logistic.predict(problem.test, solution))
    return ProbeResult(value, "accuracy", chosen, validation)


def linear_regression_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    seed: int = 0,
    strengths: Sequence[float] = (1.0, 1e-1, 1e-2, 1e-3),
) -> ProbeResult:
    """Test R2 of ridge regression from standardised features to real-valued factors.

    It minimises

        mean_i |y_i - W x_i - b|^2  +  strength |W|^2,      R2 = 1 - sum_i (y_i - f(x_i))^2 / sum_i (y_i - mean(y))^2

    in closed form. The strength is chosen on a held-out tenth of the training split, refitted on all of it, and tested
    once, as in `linear_probe`.

    Args:
        train_x, test_x: features, (N, F) and (M, F).
        train_y, test_y: targets, (N,) or (N, d), and likewise of M rows.
        seed: which tenth is held out.
        strengths: L2 strengths to choose from, relative to the mean loss, so that they do not depend on N.

    Returns:
        Metric "r2", the mean over the d outputs: 1 is perfect, 0 no better than the mean, and below it is worse.

    Raises:
        UsageError: the shapes do not fit, a split is too small, or features are not finite.

    >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    >>> round(linear_regression_probe(x[:150], x[:150, :2] * 3 + 1, x[150:], x[150:, :2] * 3 + 1).value, 3)
    1.0
    """
    return linear_regression_probes(train_x, {"": train_y}, test_x, {"": test_y}, seed, strengths)[""]


def linear_regression_probes(
    train_x: Tensor,
    train_targets: Mapping[str, Tensor],
    test_x: Tensor,
    test_targets: Mapping[str, Tensor],
    seed: int = 0,
    strengths: Sequence[float] = (1.0, 1e-1, 1e-2, 1e-3),
) -> dict[str, ProbeResult]:
    """`linear_regression_probe` for several targets of the same features, whose products are computed once.

    Args:
        train_x, test_x: features, (N, F) and (M, F).
        train_targets, test_targets: name -> (N,) or (N, d), and likewise of M rows.
        seed, strengths: as there; every target chooses its own strength.

    Returns:
        Name -> the target's result, as if it had been asked for alone.

    Raises:
        UsageError: as there.
    """
    check_strengths(strengths)
    device = train_x.device
    columns: dict[str, tuple[Tensor, Tensor]] = {}  # name -> (N, d), (M, d)
    for name in train_targets:
        check_features(train_x, train_targets[name], test_x, test_targets[name])
        pair = (y.float().reshape(len(y), -1).to(device) for y in (train_targets[name], test_targets[name]))
        columns[name] = tuple(pair)
        require_finite(train_y=columns[name][0], test_y=columns[name][1])
    train, test = standardise(train_x, test_x.to(device))
    fit, held = hold_out(len(train), seed, device)
    stacked = torch.cat([train_y for train_y, _ in columns.values()], dim=1)
    widths = [train_y.shape[1] for train_y, _ in columns.values()]

    def predict(fitted: Moments | Samples, strength: float, x: Tensor) -> dict[str, Tensor]:
        weight, intercept = fitted.solve(strength)
        return dict(zip(columns, (x @ weight + intercept).split(widths, dim=1), strict=True))

    part = statistics(train[fit], stacked[fit], samples=len(train))
    validation: dict[str, dict[float, float]] = {name: {} for name in columns}
    for strength in sorted(strengths, reverse=True):
        for name, found in predict(part, strength, train[held]).items():
            validation[name][strength] = float(r2_score(columns[name][0][held].cpu(), found.cpu()))
    # The first of equals, which is the strongest.
    chosen = {name: max(scores, key=scores.__getitem__) for name, scores in validation.items()}
    whole = part + statistics(train[held], stacked[held], samples=len(train))
    predicted = {strength: predict(whole, strength, test) for strength in set(chosen.values())}
    return {
        name: ProbeResult(
            float(r2_score(test_y.cpu(), predicted[chosen[name]][name].cpu())), "r2", chosen[name], validation[name]
        )
        for name, (_, test_y) in columns.items()
    }
