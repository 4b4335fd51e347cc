"""Contrastive Multiview Coding (Tian et al. 2020): the views of an image against each other."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import can_return_tuple

from .bank_state import BankState
from .configuration_cmc import CMCConfig
from .critics import Cosine, Dot, ResidualEmbedding
from .encoder import locations
from .errors import UsageError, choose, unknown_name
from .modeling_contrastive import ContrastiveForPreTraining, mean_of
from .modeling_infomax import InfoMaxForImageClassification, InfoMaxModel, PreTrainingOutput
from .processes import gather, own_weight
from .views import stand_in, view_pairs


class CMCModel(InfoMaxModel):
    """CMC's encoders, one for each view: RGB in [0, 1] -> the layer-wise concatenation over views.

    >>> import torch, hf_infomax
    >>> model = hf_infomax.CMCModel(hf_infomax.CMCConfig()).eval()
    >>> model(torch.rand(2, 3, 32, 32)).pooler_output.shape  # 128 of L, 128 of ab
    torch.Size([2, 256])
    >>> model.features(torch.rand(2, 3, 32, 32), layer="y", views=["L"]).shape
    torch.Size([2, 128])
    """

    config_class = CMCConfig


class CMCForPreTraining(ContrastiveForPreTraining):
    r"""CMC's objective: every pair of views in both directions (eq. 4; the full graph, eq. 8), or those of a core view (eq. 7).

    .. math:: \sum_{i < j} \hat I(V_i; V_j) + \hat I(V_j; V_i), \quad \text{or}\quad
              \sum_{j \neq c} \hat I(V_c; V_j) + \hat I(V_j; V_c)

    In the contract: the views are colour channels, and columns of the batch such as depth; each has an encoder; the critic is the
    cosine over a temperature (eq. 3), or encode-and-dot between a vector and locations (A.2); the negatives are the other view of
    other images, of the batch of all processes or of a memory bank; the bound is the configuration's, InfoNCE in the paper.

    >>> import torch, hf_infomax
    >>> output = hf_infomax.CMCForPreTraining(hf_infomax.CMCConfig())(torch.rand(8, 3, 32, 32))
    >>> sorted(output.parts)
    ['L->ab', 'ab->L']
    """

    config_class = CMCConfig
    model_class = CMCModel
    paper_negatives = 16_384

    def __init__(self, config: CMCConfig):
        super().__init__(config)
        self.pairs = self._pairs()
        self.vector = self.model.feature_layers[-1]
        self.local_layer = None
        choose("contrast", config.contrast, {"global": self._compare_vectors, "patch": self._compare_patches})()
        self.choose_negatives(self.model.encoder_of(config.views[0]).shapes[self.vector][0])
        if self.banked and config.contrast == "patch":
            raise UsageError("A memory bank keeps vectors, not patches: take negatives='batch' with contrast='patch'.")
        self.post_init()

    def _pairs(self) -> list[tuple[str, str]]:
        """(anchor, target), in both directions."""
        views = list(self.config.views)
        if len(views) == 1 and self.config.contrast == "patch":
            return [(views[0], views[0])]  # a view's vector against its own locations: DIM(L)
        if len(views) < 2:
            raise UsageError(f"CMC contrasts one view with another, but views={views} names a single one.")
        return view_pairs(views, self.config.core_view)

    def _compare_vectors(self) -> None:
        self.critic = Cosine(self.config.temperature)

    def _compare_patches(self) -> None:
        config, shapes = self.config, self.model.encoder_of(self.config.views[0]).shapes
        maps = [name for name, shape in shapes.items() if len(shape) == 3]
        self.local_layer = config.local_layer or ("patches" if "patches" in maps else maps[max(len(maps) - 2, 0)])
        if self.local_layer not in maps:
            raise unknown_name("local_layer", self.local_layer, maps)
        self.critic = Dot()
        (features,), channels = shapes[self.vector], shapes[self.local_layer][0]
        encoders = self.model.encoders  # one embedding each, whatever the number of pairs
        self.embed_x = nn.ModuleDict(
            {name: ResidualEmbedding(channels, config.dot_units, layer_norm=True) for name in encoders}
        )
        self.embed_y = nn.ModuleDict({name: ResidualEmbedding(features, config.dot_units) for name in encoders})

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        state: BankState | None = None,
        sample_index: Tensor | None = None,
        present: dict[str, Tensor] | None = None,
        **columns: Any,
    ) -> PreTrainingOutput:
        """The objective of a batch.

        Args:
            pixel_values: RGB in [0, 1] (B, 3, H, W).
            state: what `training_state` gave, where the negatives come from a bank.
            sample_index: (B,) int64, each image's place in the data, for the bank.
            present: view -> (B,) bool, of the same views on all processes. A sample without a view takes no part in the pairs of
                that view.
            columns: the views that come beside the image, (B, C, H, W), by name.

        Returns:
            `loss`, `bound` and `parts`, one for each direction ("L->ab": anchored at L), and what is told of negatives of a region.
            Each part is of the own images; where processes have different numbers of a pair, the loss weighs it by them, so that
            its mean over processes is that of all images.
        """
        # All processes agree on what is lacking, or one would wait for the others.
        present = {name: rows for name, rows in (present or {}).items() if not gather(rows).all()}
        encoded = self._encode(pixel_values, present, columns)
        vectors = {name: layers[self.vector] for name, layers in encoded.items()}  # (B, D)
        negatives = self.samplers(state, sample_index, list(vectors))
        if not self.banked and not present:
            self.negatives.require(len(next(iter(vectors.values()))))
        anchors, targets = self._sides(encoded)
        bounds, told = {}, []
        for anchor, target in self.pairs:
            rows, name = both(present.get(anchor), present.get(target)), f"{anchor}->{target}"
            x, y = targets[target], anchors[anchor]
            # An empty pair is asked about too, and backwards: other processes wait for this one.
            scores = negatives[target](self.critic, x, y, rows)
            estimate = self.estimate(name, *scores, state)
            weight = 1.0 if rows is None else own_weight(len(scores[0]), y.device)
            bounds[name] = weight, estimate if len(scores[0]) else nothing(x, y, *scores)
            told.append(self.vince(negatives[target], *scores, y, rows))
        output = PreTrainingOutput.compose(self.config.bound, bounds, told=mean_of(told))
        if self.banked:
            output.embeddings = {name: vector.detach() for name, vector in vectors.items()}
            output.sample_index, output.present = sample_index, present or None
        return output

    @torch.no_grad()
    def embeddings(
        self, pixel_values: Tensor | None = None, present: dict[str, Tensor] | None = None, **columns: Any
    ) -> dict[str, Tensor]:
        """View -> the vectors (B, D) that are compared and that a bank keeps, for what that is where a view is missing."""
        encoded = self._encode(pixel_values, present or {}, columns)
        return {name: layers[self.vector] for name, layers in encoded.items()}

    def _encode(
        self, pixel_values: Tensor | None, present: dict[str, Tensor], columns: dict[str, Any]
    ) -> dict[str, dict[str, Tensor]]:
        """View -> the layers that are compared."""
        shown = self.model.views(pixel_values, self.config.views, **columns)
        wanted = {self.vector, self.local_layer} - {None}
        encoded = {}
        for name, view in shown.items():
            if name in present:
                view = stand_in(view, present[name])
            layers = self.model.encoder_of(name)(view)
            encoded[name] = {layer: layers[layer] for layer in wanted}
        return encoded

    def _sides(self, encoded: dict[str, dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """View -> y (B, D) as an anchor, and x (B, L, C) as a target."""
        if self.local_layer is None:
            y = {name: layers[self.vector] for name, layers in encoded.items()}
            return y, {name: vectors.unsqueeze(1) for name, vectors in y.items()}
        of = self.model.views.encoders
        y = {name: self.embed_y[of[name]](layers[self.vector]) for name, layers in encoded.items()}
        x = {name: self.embed_x[of[name]](locations(layers[self.local_layer])) for name, layers in encoded.items()}
        return y, x


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """(B,) bool, the samples that have two views; None: all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def nothing(*tensors: Tensor) -> Tensor:
    """The estimate of a pair that no own sample has: 0, with all that led to it in the graph, as distributed training wants."""
    return 0.0 * sum(tensor.float().sum() for tensor in tensors)


class CMCForImageClassification(InfoMaxForImageClassification):
    """A linear classifier on a named layer of CMC's concatenated views."""

    config_class = CMCConfig
    model_class = CMCModel


__all__ = ["CMCForImageClassification", "CMCForPreTraining", "CMCModel"]
