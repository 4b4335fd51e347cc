"""What probes and measures are asked of, and how their answers become rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .table import Row


@dataclass(frozen=True)
class Subject:
    """A model, its features, and the images that they are of."""

    name: str  #: in the rows
    model: nn.Module | None  #: None: the raw pixels
    train: Mapping[str, Tensor]  #: layer -> (N, F), the last one the global vector
    test: Mapping[str, Tensor]  #: layer -> (M, F)
    train_targets: Mapping[str, Tensor]  #: name -> (N,) classes or (N, d) factors
    test_targets: Mapping[str, Tensor]
    dataset: str
    split: str
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: probe or measure -> further arguments
    train_pixels: Tensor | None = None  #: (N, 3, H, W) uint8; probes do without
    test_pixels: Tensor | None = None
    precision: str | None = None  #: of what is computed from the pixels
    device: torch.device | str = "cpu"  #: where probes and estimators are fitted

    @property
    def vector(self) -> str:
        """The layer that is the representation itself."""
        return list(self.test)[-1]

    @property
    def classes(self) -> str | None:
        """The first target that is a class."""
        return next((name for name, values in self.train_targets.items() if values.dim() == 1), None)

    def given(self, question: str) -> dict[str, Any]:
        """The further arguments of a probe or a measure."""
        return dict(self.options.get(question, {}))

    def row(self, layer: str, probe: str, target: str, metric: str, value: float, **more: Any) -> Row:
        """A row of this model on these images."""
        common = {"model": self.name, "dataset": self.dataset, "split": self.split}
        return Row(layer=layer, probe=probe, target=target, metric=metric, value=value, **common, **more)
