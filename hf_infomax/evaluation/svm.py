"""The linear support vector machine: what hyperplanes, one for each class against the rest, read from frozen features."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import logistic
from .lbfgs import minimise, second_moments
from .probes import ProbeResult, check_strengths, from_strong_to_weak
from .splits import classification, hold_out

#: The widths of the parabola that rounds the hinge's corner, in margins, coarse to fine: each starts where the last one ended.
WIDTHS = (0.5, 0.1)


def fit_svm(
    x: Tensor,
    labels: Tensor,
    strength: float,
    start: Tensor,
    max_iter: int = 100,
    moments: Tensor | None = None,
) -> Tensor:
    """All hyperplanes at once: the W and b that minimise, for t_ic = 1 where y_i = c and -1 elsewhere,

        sum_c [ mean_i max(0, 1 - t_ic (w_c x_i + b_c))  +  strength / 2 |w_c|^2 ].

    The corner of the hinge is rounded by a parabola (Huber), whose width shrinks from stage to stage of `WIDTHS`; the value is
    at most half a width below the hinge's. scikit-learn's `LinearSVC(loss="hinge")` has the corner, and also regularises the
    intercepts. Arguments, scaling and result are those of `logistic.fit`.

    Args:
        x: (N, F) features of zero mean and unit variance.
        labels: (N,) in 0 ... C - 1.
        strength: of the L2 term, 1 / (C N) in the terms of the SVM's cost C; the intercepts are free.
        start: (C, F + 1), the weights and the intercepts as the last column.
        max_iter: steps at most, of each width.
        moments: `lbfgs.second_moments` of x or of features alike, where they are known.

    Returns:
        (C, F + 1), as `start`.

    >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    >>> fit_svm(x, torch.tensor([0, 0, 1, 1]), 1e-3, torch.zeros(2, 2)).round(decimals=1).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    moments = second_moments(x) if moments is None else moments
    sign = torch.full((len(x), len(start)), -1.0, device=x.device).scatter_(1, labels[:, None], 1.0)  # (N, C)
    for width in WIDTHS:

        def hinge(scores: Tensor, width: float = width) -> tuple[Tensor, Tensor]:
            short = (1 - sign * scores).clamp_(min=0)  # (N, C)
            bent = short.clamp(max=width)
            # bent^2 / 2 width, and from there on the straight line.
            value = (bent * (short - bent / 2)).sum() / (width * len(x))
            return value, bent.mul_(sign).mul_(-1 / (width * len(x)))

        start = minimise(hinge, x, strength, start, 0.1 / width, max_iter, logistic.TOLERANCE, moments)
    return start


def svm_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    seed: int = 0,
    strengths: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4),
    max_iter: int = 100,
) -> ProbeResult:
    """Test accuracy of a linear SVM with the plain hinge loss, one class against the rest, on standardised features.

    The objective is `fit_svm`'s. The strengths are fitted on nine tenths of the training split as in `linear_probe`; the most
    accurate on the held-out tenth (of equals the strongest) is tested once, as it is: it is not fitted again on all, so that
    five seeds are five runs on five choices of nine tenths, with a spread. The problem is convex and has no other randomness.

    Args:
        train_x, test_x: features, (N, F) and (M, F).
        train_y, test_y: integer classes, (N,) and (M,).
        seed: which tenth is held out.
        strengths: L2 strengths to choose from, relative to the mean loss: the cost C is 1 / (strength * 0.9 N).
        max_iter: of each fit.

    Returns:
        Metric "accuracy", in [0, 1].

    Raises:
        UsageError: the shapes do not fit, a split is too small, features are not finite, labels are not integers, or there is
            only one class.

    Source: Hjelm et al. 2019, Learning Deep Representations by Mutual Information Estimation and Maximization, 4.1, Table 3.

    `linear_probe` is its sibling with the logistic loss, fitted again on all of the training split.

    >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    >>> svm_probe(x[:150], (x[:150, 0] > 0).long(), x[150:], (x[150:, 0] > 0).long()).value > 0.9
    True
    """
    check_strengths(strengths)
    problem = classification(train_x, train_y, test_x, test_y)
    fit, held = hold_out(len(problem.train), seed, problem.train.device)
    fit_x, fit_y = problem.train[fit], problem.labels[fit]
    held_x, held_y = problem.train[held], problem.labels[held]
    moments = second_moments(fit_x)

    def fitted(strength: float, start: Tensor) -> Tensor:
        return fit_svm(fit_x, fit_y, strength, start, max_iter, moments)

    start = fit_x.new_zeros(len(problem.classes), fit_x.shape[1] + 1)
    validation, solutions = from_strong_to_weak(strengths, fitted, start, held_x, held_y)
    chosen = max(validation, key=validation.__getitem__)  # the first of equals, which is the strongest
    value = problem.accuracy(logistic.predict(problem.test, solutions[chosen]))
    return ProbeResult(value, "accuracy", chosen, validation)
