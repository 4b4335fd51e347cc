"""A convex loss of linear scores, minimised by L-BFGS in coordinates in which its valley is nearly round."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

#: Scores (N, C) -> the mean loss, a scalar, and its gradient in the scores (N, C).
Loss = Callable[[Tensor], tuple[Tensor, Tensor]]

#: Rows for each feature that the second moments are taken of: more say little that is new about the shape of the valley, and of
#: thousands of features their product would take longer than the fit.
_ROWS = 2


def second_moments(x: Tensor) -> Tensor:
    """X^T X / N of features (N, F), from evenly spaced rows where there are many: (F, F)."""
    some = x[:: max(1, len(x) // (_ROWS * x.shape[1]))]
    return some.T @ some / len(some)


def minimise(
    loss: Loss,
    x: Tensor,
    strength: float,
    start: Tensor,
    curvature: float,
    max_iter: int = 100,
    tolerance: float = 1e-3,
    moments: Tensor | None = None,
) -> Tensor:
    """The W and b that minimise loss(x W^T + b) + strength / 2 |W|^2, from a starting point.

    Features of a network are correlated, and a plain L-BFGS spends its steps on learning that. Here the weights are V L^-1 with

        L L^T = curvature * X^T X / N + strength * I,

    and the steps are taken in V, in which the second derivative is about the identity. The gradient that `tolerance` looks at
    is that in W and b all the same, so that a fit ends where it would without. An unfinished fit is returned as it stands,
    without a warning: what it is good for is measured on held-out data anyhow.

    Args:
        loss: convex, see `Loss`.
        x: (N, F) float32 features of zero mean.
        strength: of the L2 term, above 0; the intercepts are free.
        start: (C, F + 1), the weights and the intercepts as the last column: zeros, or a neighbouring problem's solution.
        curvature: about the second derivative of the loss in a score.
        max_iter: steps at most.
        tolerance: the largest entry of the gradient at which the fit is done.
        moments: `second_moments` of x or of features alike, where they are known.

    Returns:
        (C, F + 1), as `start`.

    >>> x, target = torch.tensor([[-1.0], [1.0]]), torch.tensor([[-3.0], [1.0]])
    >>> squares = lambda scores: ((scores - target).square().sum() / 4, (scores - target) / 2)
    >>> minimise(squares, x, 1e-6, torch.zeros(1, 2), curvature=0.5).round(decimals=2).tolist()
    [[2.0, -1.0]]
    """
    moments = second_moments(x) if moments is None else moments
    shape = curvature * moments
    shape.diagonal().add_(strength)
    lower = torch.linalg.cholesky(shape)  # (F, F)
    point, intercept = start[:, :-1] @ lower, start[:, -1].clone()  # (C, F), (C,)

    def solved(rows: Tensor, transposed: bool) -> Tensor:
        """rows L^-1, or rows L^-T: solved each time, for the inverse of a large L takes longer than all steps."""
        found = torch.linalg.solve_triangular(lower.T if transposed else lower, rows, upper=transposed, left=False)
        return found.contiguous()  # as the optimiser wants its gradients

    optimizer = torch.optim.LBFGS(
        [point, intercept],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=0,  # the closure says when it is done
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss_and_gradient() -> Tensor:
        weight = solved(point, transposed=False)
        value, slope = loss(F.linear(x, weight, intercept))
        # By hand, since autograd asks for x^T slope, a product with x in the wrong order, at five times the cost.
        gradient, total = slope.T @ x + strength * weight, slope.sum(dim=0)
        # A gradient of zero is what ends the optimiser.
        done = max(gradient.abs().max(), total.abs().max()) < tolerance
        point.grad = torch.zeros_like(point) if done else solved(gradient, transposed=True)
        intercept.grad = torch.zeros_like(total) if done else total
        return strength / 2 * weight.square().sum() + value

    optimizer.step(loss_and_gradient)
    return torch.cat([solved(point, transposed=False), intercept[:, None]], dim=1)
