"""Contrastive Multiview Coding (Tian et al. 2020): the views of an image against each other."""

from itertools import permutations
from typing import Any

from torch import Tensor
from transformers.utils import can_return_tuple

from .configuration_cmc import CMCConfig
from .critics import Cosine
from .errors import UsageError, unknown_name
from .modeling_infomax import InfoMaxForImageClassification, InfoMaxForPreTraining, InfoMaxModel, PreTrainingOutput
from .negatives import InBatch


class CMCModel(InfoMaxModel):
    """CMC's encoders, one for each view: RGB in [0, 1] -> the layer-wise concatenation over views.

    >>> import torch, hf_infomax
    >>> model = hf_infomax.CMCModel(hf_infomax.CMCConfig()).eval()
    >>> model(torch.rand(2, 3, 32, 32)).pooler_output.shape  # 128 of L, 128 of ab
    torch.Size([2, 256])
    """

    config_class = CMCConfig


class CMCForPreTraining(InfoMaxForPreTraining):
    r"""CMC's objective: every pair of views in both directions (eq. 4; the full graph, eq. 8), or those of a core view (eq. 7).

    .. math:: \sum_{i < j} \hat I(V_i; V_j) + \hat I(V_j; V_i), \quad \text{or}\quad
              \sum_{j \neq c} \hat I(V_c; V_j) + \hat I(V_j; V_c)

    In the contract: the views are colour channels; each has an encoder; the critic is the cosine over a temperature (eq. 3);
    the negatives are the other view of the other images of the batch; the bound is the configuration's, InfoNCE in the paper.

    >>> import torch, hf_infomax
    >>> output = hf_infomax.CMCForPreTraining(hf_infomax.CMCConfig())(torch.rand(8, 3, 32, 32))
    >>> sorted(output.parts)
    ['L->ab', 'ab->L']
    """

    config_class = CMCConfig
    model_class = CMCModel

    def __init__(self, config: CMCConfig):
        super().__init__(config)
        if len(config.views) < 2:
            raise UsageError(f"CMC contrasts one view with another, but views={list(config.views)} names a single one.")
        self.vector = self.model.feature_layers[-1]
        self.critic = Cosine(config.temperature)
        self.negatives = InBatch(config.num_negatives)
        core = config.core_view
        if core is not None and core not in config.views:
            raise unknown_name("core_view", core, config.views)
        self.pairs = [pair for pair in permutations(config.views, 2) if core is None or core in pair]
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: Tensor, state: Any = None, **_: Any) -> PreTrainingOutput:
        """RGB in [0, 1] (B, 3, H, W) -> `loss`, `bound` and `parts`, one for each direction ("L->ab": anchored at L)."""
        self.negatives.require(len(pixel_values))
        embeddings = {name: layers[self.vector] for name, layers in self.model.encode(pixel_values).items()}  # (B, D)
        bounds = {}
        for anchor, target in self.pairs:
            scores = self.negatives(self.critic, embeddings[target].unsqueeze(1), embeddings[anchor])
            bounds[f"{anchor}->{target}"] = 1.0, self.bound(*scores)
        return PreTrainingOutput.compose(self.config.bound, bounds)


class CMCForImageClassification(InfoMaxForImageClassification):
    """A linear classifier on a named layer of CMC's concatenated views."""

    config_class = CMCConfig
    model_class = CMCModel


__all__ = ["CMCForImageClassification", "CMCForPreTraining", "CMCModel"]
