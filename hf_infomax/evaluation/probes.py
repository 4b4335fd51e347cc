"""Linear probes: what a linear model reads from frozen features, its regularisation chosen without the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from sklearn.metrics import r2_score
from torch import Tensor

from hf_infomax.models.errors import UsageError

from . import logistic
from .features import require_finite
from .ridge import Moments, Samples, statistics


@dataclass(frozen=True)
class ProbeResult:
    """A probe's one number on the test split, and how its regularisation was chosen."""

    value: float  #: the metric on the test split
    metric: str  #: "accuracy", a fraction in [0, 1], or "r2", at most 1
    strength: float  #: the chosen L2 strength
    validation: dict[float, float]  #: strength -> the metric on the held-out tenth of the training split


def _check(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, strengths: Sequence[float]) -> None:
    for split, x, y in (("training", train_x, train_y), ("test", test_x, test_y)):
        if x.dim() != 2 or len(x) != len(y):
            shapes = f"{tuple(x.shape)} and targets {tuple(y.shape)}"
            raise UsageError(
                f"The {split} split has features {shapes}: give (N, F) features and one target for each row."
            )
    if train_x.shape[1] != test_x.shape[1]:
        sizes = f"{train_x.shape[1]} and {test_x.shape[1]}"
        raise UsageError(f"Training and test features have {sizes} columns: take both from the same layer.")
    if len(train_x) < 10 or len(test_x) < 2:
        raise UsageError(
            f"A probe needs at least 10 training and 2 test samples, not {len(train_x)} and {len(test_x)}."
        )
    if not strengths or min(strengths) <= 0:
        raise UsageError(f"The strengths of a probe are {tuple(strengths)}: give one or more, all above 0.")
    require_finite(train_x=train_x, test_x=test_x)


def _standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Zero mean and unit variance by the training split's statistics; a feature that is constant there becomes zero."""
    train, test = train.float(), test.float()
    std, mean = torch.std_mean(train, dim=0, correction=0)
    # A feature that only rounding moves is as good as constant; over its tiny deviation it would be noise at full size.
    scale = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.inf).reciprocal()
    return (train - mean).mul_(scale), (test - mean).mul_(scale)


def _hold_out(samples: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A random tenth of the training split, at least two samples, to choose by, and the rest to fit on: (fit, held)."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed)).to(device)
    held = max(2, samples // 10)
    return order[held:], order[:held]


def _accuracy(predicted: Tensor, labels: Tensor) -> float:
    return (predicted == labels.to(predicted.device)).double().mean().item()


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

    by L-BFGS in float32. Every strength is fitted on nine tenths of the training split, from strong to weak
    and each from the last one's solution; the most accurate on the held-out tenth (of equals the strongest) is refitted on
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
        UsageError: the shapes do not fit, a split is too small, features are not finite, or there is only one class.

    `linear_regression_probe` is its sibling for real-valued targets; `knn_accuracy` needs no fit.

    >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    >>> linear_probe(x[:150], (x[:150, 0] > 0).long(), x[150:], (x[150:, 0] > 0).long()).value > 0.9
    True
    """
    _check(train_x, train_y, test_x, test_y, strengths)
    classes, labels = train_y.to(train_x.device).unique(return_inverse=True)
    if len(classes) < 2:
        raise UsageError("The training labels hold a single class: a linear probe needs at least two.")
    train, test = _standardise(train_x, test_x.to(train_x.device))
    fit, held = _hold_out(len(train), seed, train.device)

    fit_x, held_x = train[fit], train[held]
    validation, solutions = {}, {}
    solution = train.new_zeros(len(classes), train.shape[1] + 1)
    for strength in sorted(strengths, reverse=True):
        solution = solutions[strength] = logistic.fit(fit_x, labels[fit], strength, solution, max_iter)
        validation[strength] = _accuracy(logistic.predict(held_x, solution), labels[held])
    chosen = max(validation, key=validation.__getitem__)  # the first of equals, which is the strongest
    solution = logistic.fit(train, labels, chosen, solutions[chosen], max_iter)
    accuracy = _accuracy(classes[logistic.predict(test, solution)], test_y)
    return ProbeResult(accuracy, "accuracy", chosen, validation)


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
    device = train_x.device
    columns: dict[str, tuple[Tensor, Tensor]] = {}  # name -> (N, d), (M, d)
    for name in train_targets:
        _check(train_x, train_targets[name], test_x, test_targets[name], strengths)
        pair = (y.float().reshape(len(y), -1).to(device) for y in (train_targets[name], test_targets[name]))
        columns[name] = tuple(pair)
        require_finite(train_y=columns[name][0], test_y=columns[name][1])
    train, test = _standardise(train_x, test_x.to(device))
    fit, held = _hold_out(len(train), seed, device)
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
