"""Two augmentations of an image, one encoder, cosine critic, the batch's other images, InfoNCE: composed from the package's parts.

What the view engine is measured with: the smallest thing that learns from augmentations alone.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hf_infomax import PreTrainingOutput, critics
from hf_infomax.models.bounds import infonce
from hf_infomax.models.encoder import Encoder
from hf_infomax.models.negatives import InBatch


class TwoViews(nn.Module):
    """pixel_values (B, 2, 3, H, W) in [0, 1] -> loss and bound, each view being asked about the other."""

    def __init__(self, backbone: str, image_size: int = 32, size: int = 128, temperature: float = 0.2):
        super().__init__()
        self.encoder = Encoder(backbone, in_channels=3, image_size=image_size, representation_size=size)
        self.critic = critics.Cosine(temperature)
        self.negatives = InBatch()

    def layers(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1] -> the encoder's layers by name."""
        return self.encoder((pixel_values - 0.5) / 0.25)

    def forward(self, pixel_values: Tensor, **_: Any) -> PreTrainingOutput:
        y = self.layers(pixel_values.flatten(0, 1))["y"].unflatten(0, (-1, 2))  # (B, 2, D)
        one, other = y.unbind(1)
        pairs = ((one, other), (other, one))
        bound = torch.stack([infonce(*self.negatives(self.critic, x.unsqueeze(1), y)) for x, y in pairs]).mean()
        return PreTrainingOutput(loss=-bound, bound=bound.detach())
