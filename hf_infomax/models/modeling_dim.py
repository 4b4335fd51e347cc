"""Deep InfoMax (Hjelm et al. 2019): an image against its own representation, globally and locally."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import can_return_tuple

from .bounds import infonce
from .configuration_dim import DIMConfig
from .coordinates import CoordinatePrediction
from .critics import Concat, EncodeAndDot
from .encoder import locations
from .errors import UsageError, choose, unknown_name
from .modeling_infomax import (
    InfoMaxForImageClassification,
    InfoMaxForPreTraining,
    InfoMaxModel,
    PreTrainingOutput,
)
from .negatives import InBatch
from .priors import PRIORS, PriorMatching


class DIMModel(InfoMaxModel):
    """Deep InfoMax's encoder: RGB in [0, 1] -> the last map, and y (B, 64), before the sigmoid.

    >>> import torch, hf_infomax
    >>> model = hf_infomax.DIMModel(hf_infomax.DIMConfig()).eval()
    >>> model(torch.rand(2, 3, 32, 32)).pooler_output.shape
    torch.Size([2, 64])
    """

    config_class = DIMConfig


class DIMForPreTraining(InfoMaxForPreTraining):
    r"""Deep InfoMax's objective (eq. 8).

    .. math:: \alpha \hat I(X; Y) + \frac{\beta}{M^2} \sum_i \hat I(X^{(i)}; Y) - \gamma \hat D(V \| U)

    plus, weighted, what y and local features tell of coordinates (4.3; `coordinates.CoordinatePrediction`).

    In the contract: the views are the image's last map (global) or every location of an earlier map (local), and its own
    representation y, or that of an occluded copy; one encoder gives all; the critic is a concatenating MLP (global) or
    encode-and-dot or concat-and-convolve (local); the negatives are the other images of the batch of all processes; the bound is
    the configuration's.

    >>> import torch, hf_infomax
    >>> output = hf_infomax.DIMForPreTraining(hf_infomax.DIMConfig(dot_units=64))(torch.rand(8, 3, 32, 32))
    >>> sorted(output.parts)
    ['local', 'prior_discriminator', 'prior_encoder']
    """

    config_class = DIMConfig
    model_class = DIMModel

    def __init__(self, config: DIMConfig):
        super().__init__(config)
        if not (config.alpha or config.beta or config.gamma):
            raise UsageError("DIM has no objective with alpha=0, beta=0 and gamma=0: give one of them a weight.")
        shapes = self.model.layer_shapes
        maps = [name for name, shape in shapes.items() if len(shape) == 3]
        self.local_layer = config.local_layer or maps[max(len(maps) - 2, 0)]
        if self.local_layer not in maps:
            raise unknown_name("local_layer", self.local_layer, maps)
        self.vector = self.model.feature_layers[-1]
        channels, height, width = shapes["conv"]
        (features,) = shapes[self.vector]
        self.negatives = InBatch(config.num_negatives)
        if config.alpha:
            self.global_critic = Concat(channels * height * width, features, config.concat_units)
        if config.beta:
            local = {
                "encode_and_dot": lambda c: EncodeAndDot(c, features, config.dot_units, config.dot_shortcut),
                "concat": lambda c: Concat(c, features, config.concat_units),
            }
            self.local_critic = choose("local_critic", config.local_critic, local)(shapes[self.local_layer][0])
        if config.gamma:
            choose("prior", config.prior, PRIORS)
            self.prior = PriorMatching(features, config.prior, tuple(config.prior_units), config.prior_saturating)
        local_channels, *size = shapes[self.local_layer]
        self.coordinates = nn.ModuleDict()  # task -> predictor
        for task, weight in self.coordinate_weights.items():
            if weight:
                units, relative = tuple(config.coordinate_units), task == "relative"
                self.coordinates[task] = CoordinatePrediction(local_channels, features, tuple(size), units, relative)
        self.post_init()

    @property
    def coordinate_weights(self) -> dict[str, float]:
        """Task -> its weight in the loss (4.3)."""
        return {"absolute": self.config.absolute_coordinates, "relative": self.config.relative_coordinates}

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, state: Any = None, occluded_values: Tensor | None = None, **columns: Any
    ) -> PreTrainingOutput:
        """RGB in [0, 1] (B, 3, H, W) -> `loss`, `bound` and `parts` (`global`, `local`, `prior_encoder`, `prior_discriminator`,
        `absolute`, `relative`). Of a batch with `occluded_values` (B, 3, H, W) y is computed from these, the maps never (4.3)."""
        self.negatives.require(len(pixel_values))
        config, layers = self.config, self.model.layers(pixel_values, **columns)
        seen = layers if occluded_values is None else self.model.layers(occluded_values, **columns)
        y = seen[self.vector]  # (B, D)
        local = locations(layers[self.local_layer])  # (B, h*w, C)
        bounds, extras = {}, {}
        if config.alpha:
            whole = layers["conv"].flatten(1).unsqueeze(1)  # (B, 1, C*h*w)
            bounds["global"] = config.alpha, self.bound(*self.negatives(self.global_critic, whole, y))
        if config.beta:
            bounds["local"] = config.beta, self.bound(*self.negatives(self.local_critic, local, y))
        if config.gamma:
            extras = {name: (config.gamma, term) for name, term in self.prior(y).items()}
        for task, predict in self.coordinates.items():
            extras[task] = self.coordinate_weights[task], predict(local, y)
        return PreTrainingOutput.compose(config.bound, bounds, extras)

    def learning_rate_scale(self, parameter_name: str) -> float:
        return self.config.prior_learning_rate if parameter_name.startswith("prior.") else 1.0

    @torch.no_grad()
    def location_losses(self, pixel_values: Tensor, global_values: Tensor | None = None) -> Tensor:
        """The InfoNCE loss at each location, against the other images of the batch (Figure 13); a collective call.

        Args:
            pixel_values: RGB in [0, 1] (B, 3, H, W), from which the local map is computed.
            global_values: the images that y is computed from, such as occluded ones; None: the same.

        Returns:
            (B, h, w) in nats: high where the representation does not know the place.

        Raises:
            UsageError: the model has no local objective.
        """
        if not self.config.beta:
            raise UsageError("location_losses needs the local critic, which a model with beta=0 does not have.")
        layers = self.model.layers(pixel_values)
        y = layers[self.vector] if global_values is None else self.model.layers(global_values)[self.vector]
        local = layers[self.local_layer]
        positive, negative = InBatch()(self.local_critic, locations(local), y)  # (B, h*w), (B, 1, K)
        return -infonce(positive, negative, reduction="none").unflatten(1, local.shape[-2:])


class DIMForImageClassification(InfoMaxForImageClassification):
    """A linear classifier on a named layer of Deep InfoMax's encoder."""

    config_class = DIMConfig
    model_class = DIMModel


__all__ = ["DIMForImageClassification", "DIMForPreTraining", "DIMModel"]
