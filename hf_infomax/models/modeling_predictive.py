"""Predictive learning (CMC, 3.1; Split-Brain autoencoders, Zhang et al. 2017): one view from the representation of another."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import can_return_tuple

from .configuration_predictive import PredictiveConfig
from .decoders import TARGETS, Decoder, Target
from .errors import UsageError, choose, unknown_name
from .modeling_infomax import InfoMaxForImageClassification, InfoMaxForPreTraining, InfoMaxModel, PreTrainingOutput
from .views import stand_in, view_pairs


def directions(config: PredictiveConfig) -> list[tuple[str, str]]:
    """The (source, target) pairs of a configuration: `pairs`, or those of `core_view`, or all.

    Raises:
        UsageError: there are fewer than two views, or a pair or the core view is not of them.

    >>> directions(PredictiveConfig(views=["L", "a", "b"], core_view="L"))
    [('L', 'a'), ('L', 'b'), ('a', 'L'), ('b', 'L')]
    """
    views, core = list(config.views), config.core_view
    if len(views) < 2:
        raise UsageError(f"Predictive learning predicts one view from another, but views={views} names a single one.")
    if config.pairs is None:
        return view_pairs(views, core)
    names = list(config.pairs)
    if core is not None:
        raise UsageError(f"core_view='{core}' and pairs={names} both say what is predicted: give one of them.")
    if not names or len(set(names)) < len(names):
        raise UsageError(f"pairs={names} must name one direction or more, each once.")
    known = {f"{source}->{target}": (source, target) for source, target in view_pairs(views)}
    return [choose("direction of pairs", name, known) for name in names]


class PredictiveModel(InfoMaxModel):
    """The encoders of the views that predict others: RGB in [0, 1] -> the layer-wise concatenation over these views.

    >>> import torch, hf_infomax
    >>> model = hf_infomax.PredictiveModel(hf_infomax.PredictiveConfig(pairs=["L->ab"])).eval()
    >>> model(torch.rand(2, 3, 32, 32)).pooler_output.shape  # of L alone: nothing is predicted from ab
    torch.Size([2, 128])
    """

    config_class = PredictiveConfig

    def __init__(self, config: PredictiveConfig):
        super().__init__(config)
        self.pairs = directions(config)
        trained = {self.views.encoders[source] for source, _ in self.pairs}
        for name in list(self.encoders):
            if name not in trained:  # it would be published, and never trained
                del self.encoders[name]
        if config.feature_views is None:
            of_the_image = [name for name in self.feature_views if self.views.encoders[name] in trained]
            self.feature_views = tuple(of_the_image or dict.fromkeys(source for source, _ in self.pairs))
        for name in self.feature_views:
            self.encoder_of(name)

    def encoder_of(self, view: str) -> nn.Module:
        """The encoder of a view: its own, or that of the view that it is like.

        Raises:
            UsageError: the view is only predicted.
        """
        if self.views.encoders[view] not in self.encoders:
            raise UsageError(
                f"The view '{view}' is predicted and predicts none, so it has no encoder: add a pair '{view}->...'."
            )
        return super().encoder_of(view)


class PredictiveForPreTraining(InfoMaxForPreTraining):
    r"""Predictive learning's objective: each pair's error in the predicted view's own space, pixel by pixel.

    .. math:: \sum_{(i, j)} E\, \ell(g_{ij}(f_i(v_i)), v_j), \quad
              \ell = |\hat v - v|, \; (\hat v - v)^2 \text{ or } -\log \text{softmax}(\hat v)_{q(v)}

    In the contract: the views and their encoders are CMC's; in place of critic, negatives and bound a decoder g for each pair,
    whose error grows where a pixel is not predicted, whether or not it matters: the pixels are independent given v_i (3.1), and
    `bound` is None. Contrast `CMCForPreTraining`, whose loss is in the space of representations.

    >>> import torch, hf_infomax
    >>> output = hf_infomax.PredictiveForPreTraining(hf_infomax.PredictiveConfig())(torch.rand(8, 3, 32, 32))
    >>> sorted(output.parts), output.bound
    (['L->ab', 'ab->L'], None)
    """

    config_class = PredictiveConfig
    model_class = PredictiveModel

    def __init__(self, config: PredictiveConfig):
        super().__init__(config)
        self.pairs = self.model.pairs
        self.vector = self.model.feature_layers[-1]
        self.layer = config.decode_from or self.vector
        if self.layer not in self.model.feature_layers:
            raise unknown_name("decode_from", self.layer, self.model.feature_layers)
        coarse = config.image_size // 4 if config.target == "quantized" else config.image_size
        self.target_size = max(coarse, 1) if config.target_size is None else config.target_size
        if not 1 <= self.target_size <= config.image_size:
            raise UsageError(f"target_size={self.target_size} must be from 1 to image_size={config.image_size}.")
        self.targets = {target: self._target(target) for _, target in self.pairs}
        self.decoders = nn.ModuleDict()
        for source, target in self.pairs:
            shape, outputs = self.model.encoder_of(source).shapes[self.layer], self.targets[target].outputs
            self.decoders[f"{source}->{target}"] = Decoder(shape, outputs, self.target_size, config.decoder_channels)
        self.post_init()

    def _target(self, view: str) -> Target:
        channels = self.model.views.channels[self.model.views.encoders[view]]
        return choose("target", self.config.target, TARGETS)(view, channels, self._is_labels(view), self.config.bins)

    def _is_labels(self, view: str) -> bool:
        columns = self.model.views.columns
        return view in columns and columns[view].classes is not None

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        state: Any = None,
        present: dict[str, Tensor] | None = None,
        **columns: Any,
    ) -> PreTrainingOutput:
        """The errors of a batch's predictions.

        Args:
            pixel_values: RGB in [0, 1] (B, 3, H, W); None where no view is read from it.
            state: none is needed.
            present: view name -> (B,) bool, where a view can be missing; a sample without a pair's source or target takes no
                part in that pair, whose error is 0 where no sample is left.
            columns: the views that come beside the image, (B, C, H, W), by name.

        Returns:
            `loss`, `bound` (None) and `parts`, one for each direction ("L->ab": ab from L).

        Raises:
            UsageError: the batch lacks a view, or views do not belong together.
        """
        shown = self.model.views(pixel_values, dict.fromkeys(name for pair in self.pairs for name in pair), **columns)
        there = {name: torch.ones(len(view), dtype=torch.bool, device=view.device) for name, view in shown.items()}
        for name in set(there) & set(present or {}):
            there[name] = present[name]
            shown[name] = stand_in(shown[name], there[name])
        layers = {name: self.model.encoder_of(name)(shown[name]) for name in dict.fromkeys(s for s, _ in self.pairs)}
        views = {target: self._as_predicted(shown[target]) for target in self.targets}
        extras = {}
        for source, target in self.pairs:
            name = f"{source}->{target}"
            prediction = self.decoders[name](layers[source][self.layer])
            extras[name] = 1.0, self._error(prediction, views[target], target, there[source] & there[target])
        output = PreTrainingOutput.compose(None, {}, extras)
        if self.layer != self.vector:  # distributed training wants every parameter in the graph
            output.loss = output.loss + 0.0 * sum(layer[self.vector].float().sum() for layer in layers.values())
        return output

    def _as_predicted(self, view: Tensor) -> Tensor:
        """(B, C, H, W) -> float32 (B, C, h, w), averaged to `target_size`."""
        size = (self.target_size, self.target_size)
        with torch.autocast(view.device.type, enabled=False):
            return view.float() if view.shape[-2:] == size else F.adaptive_avg_pool2d(view.float(), size)

    def _error(self, prediction: Tensor, view: Tensor, target: str, takes_part: Tensor) -> Tensor:
        """The mean error, scalar float32, over the samples of `takes_part` (B,) and their pixels; unlabelled ones do not count."""
        with torch.autocast(view.device.type, enabled=False):
            errors = self.targets[target].errors(prediction.float(), view)  # (B, h, w)
        counted = takes_part[:, None, None].expand_as(errors)
        if self._is_labels(target):
            counted = counted & (view.sum(dim=1) > 0)
        return errors.where(counted, 0.0).sum() / counted.sum().clamp(min=1)


class PredictiveForImageClassification(InfoMaxForImageClassification):
    """A linear classifier on a named layer of predictive learning's concatenated views."""

    config_class = PredictiveConfig
    model_class = PredictiveModel


__all__ = ["PredictiveForImageClassification", "PredictiveForPreTraining", "PredictiveModel"]
