"""Semantic segmentation from one view: its encoder, frozen or not, under the decoder of a U-Net."""

import json
import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from hf_infomax.models.errors import UsageError, unknown_name
from hf_infomax.models.modeling_infomax import InfoMaxPreTrainedModel

from .requirements import segmentation_models

#: Channels of the decoder's blocks, from the input's resolution down; deeper blocks have as many as the last.
WIDTHS = (16, 32, 64, 128, 256)
_WEIGHTS, _SETTINGS = "model.safetensors", "segmenter.json"


def finest_first(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps (B, C, h, w) in an encoder's order -> the last one at each resolution, the finest first.

    >>> [tuple(m.shape[1:]) for m in finest_first([torch.empty(1, c, s, s) for c, s in ((8, 16), (16, 8), (32, 8))])]
    [(8, 16, 16), (32, 8, 8)]
    """
    last = {layer.shape[-2:]: layer for layer in maps}
    return sorted(last.values(), key=lambda layer: -layer.shape[-2] * layer.shape[-1])


class MapDecoder(nn.Module):
    """An encoder's maps -> the classes of every pixel: segmentation_models_pytorch's U-Net decoder and head.

    A block of the decoder enlarges what it has to the size of the next finer map (nearest neighbour, whatever that size is),
    joins the two and convolves twice. Where an encoder has no map at a power of two, as above a first map at a fourth of the
    input or after odd sizes, a map without channels stands in, so that no block enlarges much more than twofold. The last block
    works at the input's own resolution.

    Args:
        shapes: (C, h, w) of the maps, the finest first, for an input of `image_size`.
        image_size: side of the square input in pixels.
        num_classes: planes of the output.

    Raises:
        UsageError: segmentation_models_pytorch is missing.

    >>> decoder = MapDecoder([(8, 13, 13), (16, 6, 6)], image_size=64, num_classes=5)
    >>> decoder([torch.rand(2, 8, 13, 13), torch.rand(2, 16, 6, 6)], size=(64, 64)).shape
    torch.Size([2, 5, 64, 64])
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], image_size: int, num_classes: int):
        super().__init__()
        smp = segmentation_models()
        sides = [image_size, *(shape[-1] for shape in shapes)]
        self.blanks = [max(round(math.log2(finer / side)) - 1, 0) for finer, side in pairwise(sides)]
        channels = [0]  # of the input, which the library's decoder asks for and does not read
        for blanks, shape in zip(self.blanks, shapes, strict=True):
            channels += [0] * blanks + [shape[0]]
        blocks = len(channels) - 1
        widths = [WIDTHS[min(block, len(WIDTHS) - 1)] for block in reversed(range(blocks))]
        self.decoder = smp.decoders.unet.decoder.UnetDecoder(channels, widths, n_blocks=blocks)
        self.head = smp.base.SegmentationHead(widths[-1], num_classes)
        smp.base.initialization.initialize_decoder(self.decoder)
        smp.base.initialization.initialize_head(self.head)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Maps, the finest first, and the input's height and width -> logits (B, num_classes, *size)."""
        height, width = size
        features = [_blank(maps[0], height, width)]
        for blanks, layer in zip(self.blanks, maps, strict=True):
            for _ in range(blanks):
                height, width = max(height // 2, 1), max(width // 2, 1)
                features.append(_blank(layer, height, width))
            features.append(layer)
            height, width = layer.shape[-2:]
        return self.head(self.decoder(features))


def _blank(like: Tensor, height: int, width: int) -> Tensor:
    return like.new_empty(len(like), 0, height, width)


class UNet(nn.Module):
    """One view's encoder under a decoder that is trained for semantic segmentation (Contrastive Multiview Coding, 4.3.1).

    A frozen encoder is in evaluation mode whatever `train()` says, batch norm's statistics included, has no gradient and is
    computed without a graph. The encoder is the model's own, not a copy: an unfrozen one is trained with it.

    Args:
        model: a method's `Model` or `ForPreTraining`.
        view: one of its views, such as "L" or "depth"; the other views are not looked at, and not saved.
        num_classes: classes of the label maps.
        frozen: train the decoder alone.

    Raises:
        UsageError: there is no such view, or segmentation_models_pytorch is missing.

    >>> import hf_infomax
    >>> unet = UNet(hf_infomax.CMCModel(hf_infomax.CMCConfig(image_size=64)), "L", num_classes=6)
    >>> unet(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 6, 64, 64])
    """

    def __init__(self, model: InfoMaxPreTrainedModel, view: str, num_classes: int, frozen: bool = True):
        super().__init__()
        base = model.base_model
        if view not in base.views.encoders:
            raise unknown_name("view", view, tuple(base.views.encoders))
        self.config, self.view, self.num_classes, self.frozen = base.config, view, num_classes, frozen
        self.views, self.encoder = base.views, base.encoder_of(view)
        # On the meta device a tensor has a shape and nothing else.
        layers = [torch.empty(1, *shape, device="meta") for shape in self.encoder.shapes.values() if len(shape) == 3]
        self.decoder = MapDecoder(
            [tuple(m.shape[1:]) for m in finest_first(layers)], base.config.image_size, num_classes
        )
        self.encoder.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> "UNet":
        """Training mode, for the encoder too unless it is frozen."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def maps(self, pixel_values: Tensor | None = None, **columns: Tensor) -> list[Tensor]:
        """The encoder's maps (B, C, h, w), the last one at each resolution, the finest first: what the decoder is given.

        Of a frozen encoder they are the same in every epoch, and may be computed once.
        """
        return self._encode(self._shown(pixel_values, columns))

    def forward(self, pixel_values: Tensor | None = None, **columns: Tensor) -> Tensor:
        """RGB in [0, 1] (B, 3, H, W), or the view's own column (B, C, H, W) by its name -> logits (B, num_classes, H, W)."""
        shown = self._shown(pixel_values, columns)
        return self.decoder(self._encode(shown), shown.shape[-2:])

    def _shown(self, pixel_values: Tensor | None, columns: dict[str, Tensor]) -> Tensor:
        return self.views(pixel_values, (self.view,), **columns)[self.view]

    def _encode(self, shown: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            layers = self.encoder(shown)
        return finest_first([layer for layer in layers.values() if layer.dim() == 4])

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the weights (safetensors) and what builds the network that they belong to (JSON)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self, str(folder / _WEIGHTS))
        own = {"view": self.view, "num_classes": self.num_classes, "frozen": self.frozen}
        text = json.dumps(own | {"encoder": self.config.to_dict()}, indent=2) + "\n"
        (folder / _SETTINGS).write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> "UNet":
        """What `save_pretrained` wrote, in evaluation mode.

        Raises:
            UsageError: the folder holds no segmenter.
        """
        folder = Path(folder)
        try:
            own: dict[str, Any] = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            encoder = own.pop("encoder")
            unet = cls(AutoModel.from_config(AutoConfig.for_model(**encoder)), **own)
            load_model(unet, str(folder / _WEIGHTS))
        except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
            raise UsageError(
                f"'{folder}' holds no segmenter ({error}): give one that `save_pretrained` wrote."
            ) from error
        return unet.eval()
