"""Projection heads: between the representation y, which users receive, and the vectors that are compared."""

from collections.abc import Callable

from torch import nn

#: (units of y, units that are compared) -> a head, by the name that configurations use.
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": nn.Linear,
    "mlp": lambda features, units: nn.Sequential(nn.Linear(features, units), nn.ReLU(), nn.Linear(units, units)),
}
