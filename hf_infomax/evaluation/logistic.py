"""Multinomial logistic regression on float32 features, by L-BFGS on whichever device they are."""

import torch
from torch import Tensor
from torch.nn import functional as F

#: The largest entry of the gradient of the mean loss at which a fit is done. On standardised features a tighter one moves
#: the test accuracy by less than its own sampling error, at three times the steps.
TOLERANCE = 1e-3


def predict(x: Tensor, solution: Tensor) -> Tensor:
    """Features (N, F) and a solution (C, F + 1) -> the most probable class of each, (N,)."""
    return F.linear(x, solution[:, :-1], solution[:, -1]).argmax(dim=1)


def fit(
    x: Tensor, labels: Tensor, strength: float, start: Tensor, max_iter: int = 100, tolerance: float = TOLERANCE
) -> Tensor:
    """The W and b that minimise mean_i -log softmax(W x_i + b)[y_i] + strength / 2 |W|^2, from a starting point.

    scikit-learn's `LogisticRegression(C=1 / (strength * N))` solves the same problem by the same method, but multiplies
    float32 features by float64 weights, which copies them all at every step: it takes twice as long and more. An unfinished
    fit is returned as it stands, without a warning: what it is good for is measured on held-out data anyhow.

    Args:
        x: (N, F) features of zero mean and unit variance.
        labels: (N,) in 0 ... C - 1.
        strength: of the L2 term; the intercepts are free.
        start: (C, F + 1), the weights and the intercepts as the last column: zeros, or a neighbouring problem's solution.
        max_iter: steps at most.
        tolerance: see `TOLERANCE`.

    Returns:
        (C, F + 1), as `start`.
    """
    weight, intercept = start[:, :-1].clone(), start[:, -1].clone()
    optimizer = torch.optim.LBFGS(
        [weight, intercept],
        max_iter=max_iter,
        tolerance_grad=tolerance,
        tolerance_change=1e-7,  # no finer than float32 can tell apart
        history_size=10,
        line_search_fn="strong_wolfe",
    )
    target = F.one_hot(labels, len(start)).to(x.dtype)  # (N, C)

    def loss_and_gradient() -> Tensor:
        log_p = F.linear(x, weight, intercept).log_softmax(dim=1)  # (N, C)
        residual = (log_p.exp() - target) / len(x)
        # By hand, since autograd asks for x^T residual, a product with x in the wrong order, at five times the cost.
        weight.grad = residual.T @ x + strength * weight
        intercept.grad = residual.sum(dim=0)
        return strength / 2 * weight.square().sum() - (log_p * target).sum() / len(x)

    optimizer.step(loss_and_gradient)
    return torch.cat([weight, intercept[:, None]], dim=1)
