"""Instance discrimination (Wu et al. 2020): IR, SimCLR, BALL, ANN, LA and the annealed forms, one model."""

from itertools import permutations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import can_return_tuple

from .bank_state import BankState
from .configuration_instdisc import InstDiscConfig
from .critics import Bilinear, Concat, Cosine
from .errors import UsageError, choose
from .heads import HEADS
from .modeling_contrastive import ContrastiveForPreTraining, mean_of
from .modeling_infomax import InfoMaxForImageClassification, InfoMaxModel, PreTrainingOutput


class InstDiscModel(InfoMaxModel):
    """The encoder of instance discrimination: RGB in [0, 1] -> maps and vectors.

    >>> import torch, hf_infomax
    >>> model = hf_infomax.InstDiscModel(hf_infomax.InstDiscConfig()).eval()
    >>> model(torch.rand(2, 3, 32, 32)).pooler_output.shape
    torch.Size([2, 128])
    """

    config_class = InstDiscConfig


class InstDiscForPreTraining(ContrastiveForPreTraining):
    r"""Instance discrimination: an image against another view of it, among other images.

    .. math:: \hat I = E\Big[ \log \frac{e^{f(x, y_1)}}{\frac{1}{K} \sum_{k=1}^{K} e^{f(x, y_k)}} \Big], \quad
              y_{2:K} \sim p, \text{ or } q_{\tau, \gamma}

    In the contract: the views are augmentations of an image (eq. 9), or one and what a memory bank remembers of the others (eq. 5,
    a weighted view set, eq. 7); one encoder; the critic is one of appendix D's; the negatives are of the batch of all processes, of
    all data, of a ball or of an annulus around M[i]; the bound is InfoNCE, which over a restricted region is VINCE. IR, SimCLR,
    BALL, ANN and LA differ in the configuration alone.

    The authors' ANN, log p(i) / p(B_i \\ C_i), leaves the positive out of its denominator, for i is in C_i; as a bound (Lemma 5.1)
    it needs it, and here has it. BALL+ begins at a threshold of minus infinity, where the text says infinity.

    >>> import torch, hf_infomax
    >>> model = hf_infomax.InstDiscForPreTraining(hf_infomax.InstDiscConfig.preset("ball", ball_size=50))
    >>> state = model.training_state(num_samples=100, device=torch.device("cpu"))
    >>> output = model(torch.rand(8, 3, 32, 32), state=state, sample_index=torch.arange(8))
    >>> sorted(output.parts)
    ['1->bank', 'infonce', 'vince', 'vince_below', 'vince_holds']
    """

    config_class = InstDiscConfig
    model_class = InstDiscModel
    paper_negatives = 4096

    def __init__(self, config: InstDiscConfig):
        super().__init__(config)
        if len(config.views) != 1:
            raise UsageError(
                f"views={list(config.views)}: instance discrimination compares augmentations of one view; 'cmc' compares views."
            )
        (self.view,) = config.views
        self.vector = self.model.feature_layers[-1]
        (size,) = self.model.encoder_of(self.view).shapes[self.vector]
        self.head = None
        if config.head is not None:
            units = config.head_units or size
            self.head, size = choose("head", config.head, HEADS)(size, units, config.head_hidden_units), units
        self.critic = choose(
            "critic",
            config.critic,
            {
                "cosine": lambda: Cosine(config.temperature),
                "bilinear": lambda: Bilinear(size, config.temperature),
                "linear": lambda: Concat(size, size, hidden_layers=0),
                "mlp1": lambda: Concat(size, size, config.critic_units, hidden_layers=1),
                "mlp2": lambda: Concat(size, size, config.critic_units, hidden_layers=2),
            },
        )()
        self.choose_negatives(size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        state: BankState | None = None,
        sample_index: Tensor | None = None,
        **_: Any,
    ) -> PreTrainingOutput:
        """The objective of a batch.

        Args:
            pixel_values: RGB in [0, 1], (B, 3, H, W) or V augmentations of each image (B, V, 3, H, W).
            state: what `training_state` gave, where the negatives come from a bank.
            sample_index: (B,) int64, each image's place in the data, for the bank.

        Returns:
            `loss`, `bound` and `parts`: "1->2" for the first augmentation against the second, "1->bank" against the bank; with
            negatives of a region "vince" in nats, "infonce" beside it, which is the `bound`, "vince_holds" and "vince_below"; see
            `negatives.FromBank.told`.
        """
        images = self.augmentations(pixel_values)
        vectors = self.embed(images.flatten(0, 1)).unflatten(0, images.shape[:2]).unbind(1)  # V times (B, D)
        sampler = self.samplers(state, sample_index, [self.view])[self.view]
        pairs = {f"{x + 1}->{y + 1}": (x, y) for x, y in permutations(range(len(vectors)), 2)}
        if self.banked:
            pairs = {f"{anchor + 1}->bank": (anchor, anchor - 1) for anchor in range(len(vectors))}
        if not pairs or (self.config.bank_positive == "batch" and len(vectors) < 2):
            raise UsageError(
                "One augmentation of an image has nothing to be compared with: give pixel_values (batch, 2, 3, height, width) by a "
                "recipe of views with two, such as views.recipe=simclr, or take the positives and negatives from a bank."
            )
        bounds, told = {}, []
        for name, (anchor, other) in pairs.items():
            scores = sampler(self.critic, vectors[other].unsqueeze(1), vectors[anchor])
            bounds[name] = 1.0 / len(pairs), self.estimate(name, *scores, state)
            told.append(self.vince(sampler, *scores, vectors[anchor]))
        output = PreTrainingOutput.compose(self.config.bound, bounds, told=mean_of(told))
        if self.banked:
            output.embeddings, output.sample_index = {self.view: vectors[0].detach()}, sample_index
        return output

    @torch.no_grad()
    def embeddings(self, pixel_values: Tensor, **_: Any) -> dict[str, Tensor]:
        """View -> the vectors (B, D) that are compared and that a bank keeps, of the first augmentation."""
        return {self.view: self.embed(self.augmentations(pixel_values)[:, 0])}

    def augmentations(self, pixel_values: Tensor | None) -> Tensor:
        """The batch as V augmentations of each image (B, V, 3, H, W).

        Raises:
            UsageError: there is no batch, or it is none of images, or too small for the negatives.
        """
        if pixel_values is None or pixel_values.dim() not in (4, 5):
            given = "nothing" if pixel_values is None else tuple(pixel_values.shape)
            raise UsageError(
                f"pixel_values must be (batch, 3, height, width) or (batch, views, 3, height, width), not {given}."
            )
        images = pixel_values.unsqueeze(1) if pixel_values.dim() == 4 else pixel_values
        if self.config.negatives == "batch":
            self.negatives.require(len(images))
        return images

    def represent(self, images: Tensor) -> Tensor:
        """The global vectors (N, F) of images (N, 3, H, W), before the head."""
        return self.model.encode(images, [self.view])[self.view][self.vector]

    def embed(self, images: Tensor) -> Tensor:
        """What is compared of images (N, 3, H, W): unit vectors (N, D)."""
        y = self.represent(images)
        return F.normalize((self.head(y) if self.head else y).float(), dim=1)


class InstDiscForImageClassification(InfoMaxForImageClassification):
    """A linear classifier on a named layer of an encoder that was trained by instance discrimination."""

    config_class = InstDiscConfig
    model_class = InstDiscModel


__all__ = ["InstDiscForImageClassification", "InstDiscForPreTraining", "InstDiscModel"]
