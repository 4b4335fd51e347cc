"""InfoMin (Tian et al. 2020), MoCo, MoCo v2 and PIRL: strong views against the keys of a momentum copy, or a memory bank."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.utils import can_return_tuple

from .bank_state import BankState
from .configuration_infomin import InfoMinConfig
from .errors import UsageError, choose
from .heads import JigsawHead
from .key_queue import KeyQueue
from .modeling_contrastive import NEGATIVES, mean_of
from .modeling_infomax import InfoMaxForImageClassification, InfoMaxModel, PreTrainingOutput
from .modeling_instdisc import InstDiscForPreTraining
from .momentum import MomentumCopy
from .queue_state import FILLS, QueueState


class InfoMinModel(InfoMaxModel):
    """The encoder of InfoMin, MoCo and PIRL: RGB in [0, 1] -> maps and vectors.

    >>> import torch, hf_infomax
    >>> model = hf_infomax.InfoMinModel(hf_infomax.InfoMinConfig()).eval()
    >>> model(torch.rand(2, 3, 32, 32)).pooler_output.shape
    torch.Size([2, 1024])
    """

    config_class = InfoMinConfig


class InfoMinForPreTraining(InstDiscForPreTraining):
    r"""An image, and its pieces, against the key of another view of it, among the keys of other images.

    .. math:: (1 - w)\, \hat I(v_1; k) + w\, \hat I(v_{jigsaw}; k), \quad
              \hat I(v; k) = E\Big[ \log \frac{e^{f(v, k)}}{\frac{1}{K + 1} \sum_{k' \in \{k\} \cup queue} e^{f(v, k')}} \Big]

    In the contract: the views are two strong augmentations of an image, and nine pieces of a third in a random order; one encoder,
    with a head for each kind of view, and its momentum copy, which encodes k; the critic is the cosine over a temperature; the
    negatives are the keys of the last batches, in a queue; the bound is InfoNCE. PIRL takes k and its negatives from a memory bank
    instead and needs no copy; MoCo leaves the pieces away. InstDisc with `negatives="batch"` (SimCLR) is what remains without
    queue and copy.

    What pieces do to a batch norm's running statistics is left out of them: users show images.

    >>> import torch, hf_infomax
    >>> model = hf_infomax.InfoMinForPreTraining(hf_infomax.InfoMinConfig(queue_size=16, queue_fill="grow"))
    >>> state = model.training_state(num_samples=None, device=torch.device("cpu"))
    >>> for step in range(2):
    ...     output = model(torch.rand(8, 2, 3, 32, 32), state=state, jigsaw_values=torch.rand(8, 9, 3, 9, 9))
    ...     state.after_step(output, step)
    >>> sorted(output.parts), state.queues["RGB"].filled
    (['image', 'jigsaw'], 16)
    """

    config_class = InfoMinConfig
    model_class = InfoMinModel
    paper_negatives = 32_000  # PIRL's
    origins = NEGATIVES | {"queue": (False, False)}

    def __init__(self, config: InfoMinConfig):
        super().__init__(config)
        self.jigsaw = None
        if config.jigsaw_weight:
            self.jigsaw = self._jigsaw_head()
        choose("queue_fill", config.queue_fill, FILLS)
        if config.negatives == "queue" and config.encoder_momentum is None:
            raise UsageError(
                "A queue holds the keys of a momentum copy: set encoder_momentum, such as 0.999, or negatives='batch'."
            )
        if config.negatives == "queue" and config.num_negatives is not None:
            raise UsageError("The negatives are the whole queue: set queue_size instead of num_negatives.")
        if self.banked and config.encoder_momentum is not None:
            raise UsageError(
                "A memory bank remembers what the encoder itself has said: set encoder_momentum=null with it, or "
                "negatives='queue' for keys of a momentum copy."
            )
        self.post_init()

    def _jigsaw_head(self) -> JigsawHead:
        config, encoder = self.config, self.model.encoder_of(self.view)
        if not 0 < config.jigsaw_weight <= 1:
            raise UsageError(f"jigsaw_weight={config.jigsaw_weight}: give a share of the loss, from 0 to 1.")
        if config.head is None:
            raise UsageError("The pieces of a jigsaw are put together by a head: set head='linear' or head='mlp'.")
        if getattr(encoder, "fixed_size", False):
            raise UsageError(
                f"Backbone '{config.backbone}' takes images of {config.image_size} pixels alone, and the pieces of a jigsaw are "
                "smaller: take dcgan_pooled, resnet18_cifar or another that pools its last map, or jigsaw_weight=0."
            )
        (features,) = encoder.shapes[self.vector]
        return JigsawHead(config.head, features, self.size, config.jigsaw_pieces, config.head_hidden_units)

    def training_state(self, num_samples: int | None, device: torch.device) -> BankState | QueueState | None:
        """The memory bank, or the momentum copy with its queue: what the configuration asks for.

        Raises:
            UsageError: a bank over a stream.
        """
        config = self.config
        if self.banked or config.encoder_momentum is None:
            return super().training_state(num_samples, device)
        copy = MomentumCopy(
            self, config.encoder_momentum, config.key_norm, config.key_group, seed=torch.initial_seed() % 2**32
        )
        queues = {}
        if config.negatives == "queue":
            queues[self.view] = KeyQueue(config.queue_size, self.size, device)
        return QueueState(copy, queues, config.queue_fill if num_samples else "grow")

    def samplers(self, state: Any, sample_index: Tensor | None, views: Sequence[str]) -> Mapping[str, Any]:
        """View -> where the negatives of this step are from."""
        if state is None and self.config.encoder_momentum is not None:
            raise UsageError(
                "A momentum copy and a queue are no part of the model: give state=model.training_state(num_samples, device)."
            )
        if self.config.negatives == "queue":
            return state.negatives(sample_index)
        return super().samplers(state, sample_index, views)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        state: BankState | QueueState | None = None,
        sample_index: Tensor | None = None,
        jigsaw_values: Tensor | None = None,
        **_: Any,
    ) -> PreTrainingOutput:
        """The objective of a batch.

        Args:
            pixel_values: RGB in [0, 1], two augmentations of each image (B, 2, 3, H, W), of which the last is the key's; with a
                bank one will do, (B, 3, H, W).
            state: what `training_state` gave.
            sample_index: (B,) int64, each image's place in the data: for a bank; a queue leaves out the own image's keys by it.
            jigsaw_values: (B, pieces, 3, h, h), where `jigsaw_weight` is not 0.

        Returns:
            `loss`, `bound` and `parts`: "image" and "jigsaw", and what is told of negatives of a region.
        """
        images = self.augmentations(pixel_values)
        sampler = self.samplers(state, sample_index, [self.view])[self.view]
        x = self._keys(images, state)
        anchors = {"image": (1.0 - self.config.jigsaw_weight, self.embed(images[:, 0]))}
        if self.jigsaw is not None:
            anchors["jigsaw"] = self.config.jigsaw_weight, self.embed_pieces(jigsaw_values)
        bounds, told = {}, []
        for name, (weight, y) in anchors.items():
            scores = sampler(self.critic, x, y)
            bounds[name] = weight, self.estimate(name, *scores, state)
            told.append(self.vince(sampler, *scores, y))
        output = PreTrainingOutput.compose(self.config.bound, bounds, told=mean_of(told))
        if state is not None:
            kept = anchors["image"][1] if self.banked else x.squeeze(1)
            output.embeddings, output.sample_index = {self.view: kept.detach()}, sample_index
        return output

    def _keys(self, images: Tensor, state: Any) -> Tensor | None:
        """What the anchors are compared with (B, 1, D); None where a bank remembers it."""
        if self.banked and self.config.bank_positive == "bank":
            return None
        keyed = self.key_images(images)
        if self.banked or state is None:
            return self.embed(keyed).unsqueeze(1)
        return state.keys(keyed)[self.view].unsqueeze(1)

    def key_images(self, pixel_values: Tensor) -> Tensor:
        """The augmentation that the key is of (B, 3, H, W).

        Raises:
            UsageError: there is one alone, which the query is of.
        """
        if pixel_values.dim() != 5 or pixel_values.shape[1] < 2:
            raise UsageError(
                "A query and its key are two augmentations of an image: give pixel_values (batch, 2, 3, height, width) by a recipe "
                "of views with two, such as views.recipe=moco_v2, or by views.crops=2."
            )
        return pixel_values[:, -1]

    def embed_pieces(self, jigsaw_values: Tensor | None) -> Tensor:
        """Unit vectors (B, D) of images in pieces (B, pieces, 3, h, h)."""
        if jigsaw_values is None:
            raise UsageError(
                "The batch has no jigsaw_values, (batch, pieces, 3, height, width): take a recipe of views that makes them, such "
                "as views.recipe=infomin, or set model.jigsaw_weight=0."
            )
        with unchanged_statistics(self.model):
            y = self.represent(jigsaw_values.flatten(0, 1))  # (B * pieces, F)
        return F.normalize(self.jigsaw(y.unflatten(0, jigsaw_values.shape[:2])).float(), dim=1)


@contextmanager
def unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms that normalise by the batch, as in training, and do not remember it."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class InfoMinForImageClassification(InfoMaxForImageClassification):
    """A linear classifier on a named layer of an encoder that was trained as InfoMin, MoCo or PIRL."""

    config_class = InfoMinConfig
    model_class = InfoMinModel


__all__ = ["InfoMinForImageClassification", "InfoMinForPreTraining", "InfoMinModel"]
