"""Multinomial logistic regression: scikit-learn's on few samples, by L-BFGS in float32 on the features' device on many."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from .lbfgs import minimise

#: The largest entry of the gradient of the mean loss at which a fit is done. On standardised features a tighter one moves
#: the test accuracy by less than its own sampling error, at several times the steps.
TOLERANCE = 1e-3

#: Fewer samples are fitted by scikit-learn, in float64: it is exact, and the time does not matter.
SMALL = 2_000


def predict(x: Tensor, solution: Tensor) -> Tensor:
    """Features (N, F) and a solution (C, F + 1) -> the class with the largest score of each, (N,)."""
    return F.linear(x, solution[:, :-1], solution[:, -1]).argmax(dim=1)


def fit(
    x: Tensor,
    labels: Tensor,
    strength: float,
    start: Tensor,
    max_iter: int = 100,
    tolerance: float = TOLERANCE,
    moments: Tensor | None = None,
) -> Tensor:
    """The W and b that minimise mean_i -log softmax(W x_i + b)[y_i] + strength / 2 |W|^2, from a starting point.

    scikit-learn's `LogisticRegression(C=1 / (strength * N))` solves the same problem, and does so here below `SMALL` samples.
    On more it multiplies float32 features by float64 weights, which copies them all at every step, and is blind to how the
    features hang together: see `hf_infomax.evaluation.lbfgs`.

    Args:
        x: (N, F) features of zero mean and unit variance.
        labels: (N,) in 0 ... C - 1.
        strength: of the L2 term; the intercepts are free.
        start: (C, F + 1), the weights and the intercepts as the last column: zeros, or a neighbouring problem's solution.
        max_iter: steps at most; of scikit-learn ten times as many.
        tolerance: see `TOLERANCE`; scikit-learn has its own where that is finer.
        moments: `lbfgs.second_moments` of x or of features alike, where they are known.

    Returns:
        (C, F + 1), as `start`.
    """
    if len(x) < SMALL:
        return _fit_in_span(x, labels, strength, start, 10 * max_iter, min(tolerance, 1e-4))
    target = F.one_hot(labels, len(start)).to(x.dtype)  # (N, C)

    def cross_entropy(scores: Tensor) -> tuple[Tensor, Tensor]:
        log_p = scores.log_softmax(dim=1)  # (N, C)
        return -(log_p * target).sum() / len(x), (log_p.exp() - target) / len(x)

    share = 1 / len(start)
    return minimise(cross_entropy, x, strength, start, share * (1 - share), max_iter, tolerance, moments)


def _fit_in_span(x: Tensor, labels: Tensor, strength: float, start: Tensor, max_iter: int, tolerance: float) -> Tensor:
    """`_fit_small`; of far more features than samples in a basis of these, of which the weights are a combination: the same fit."""
    if x.shape[1] <= 2 * len(x):
        return _fit_small(x, labels, strength, start, max_iter, tolerance)
    left, scale, basis = torch.linalg.svd(x, full_matrices=False)  # (N, N), (N,), (N, F)
    few = start.new_zeros(len(start), len(x) + 1)
    solution = _fit_small(left * scale, labels, strength, few, max_iter, tolerance)
    return torch.cat([solution[:, :-1] @ basis, solution[:, -1:]], dim=1)


def _fit_small(x: Tensor, labels: Tensor, strength: float, start: Tensor, max_iter: int, tolerance: float) -> Tensor:
    present = labels.unique()
    solution = torch.zeros_like(start)
    weight, intercept = solution[present, :-1].double(), solution[present, -1].double()
    if len(present) > 1:
        # Of two classes scikit-learn has one weight vector, W_1 - W_0, whose square is twice the sum of theirs.
        scale = strength * len(x) / (2 if len(present) == 2 else 1)
        model = LogisticRegression(C=1 / scale, tol=tolerance, max_iter=max_iter)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            model.fit(x.double().cpu().numpy(), labels.cpu().numpy())
        weight, intercept = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        if len(present) == 2:
            weight, intercept = torch.cat([-weight, weight]) / 2, torch.cat([-intercept, intercept]) / 2
    solution[present] = torch.cat([weight, intercept[:, None]], dim=1).to(solution)
    # A class without a sample is never chosen: the others' scores have the mean of their intercepts, and the best is above it.
    absent = torch.ones(len(start), dtype=torch.bool, device=start.device)
    absent[present] = False
    solution[absent, -1] = solution[present, -1].min() - 10
    return solution
