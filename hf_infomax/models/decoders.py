"""Decoders: the representation of one view -> another view, and how far that prediction is from it, pixel by pixel.

| target | the decoder gives, for C channels | its error at a pixel |
|---|---|---|
| l1 | C values | absolute, mean over the channels |
| l2 | C values | squared, mean over the channels |
| quantized | logits of bins**C classes | cross-entropy, nats |
| quantized, of a label map | logits of its own C classes | cross-entropy, nats |
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UsageError

#: A vector becomes a map of at most so many pixels a side, which is then enlarged.
MAX_FIRST_SIDE = 7


class Upsample(nn.Sequential):
    """Nearest-neighbour enlargement to a side, then a 3x3 convolution with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, side: int):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        super().__init__(nn.Upsample(size=(side, side)), conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Decoder(nn.Module):
    r"""A layer of an encoder -> a map of a given side, :math:`\hat v_2 = g(z)` (CMC, Figure 2).

    A vector goes through a linear layer to a small map, a map through a 1x1 convolution; then blocks of twice the side each, the
    last cut to the side that is asked for; then a 1x1 convolution. A map that is too large at the start is averaged down.

    Args:
        shape: (D,) or (C, h, w) of the layer, without the batch.
        outputs: channels of the prediction.
        side: of the prediction, in pixels.
        channels: of the first map, then of each block's; the last is repeated.

    >>> import torch
    >>> Decoder((128,), outputs=2, side=32)(torch.rand(4, 128)).shape
    torch.Size([4, 2, 32, 32])
    >>> Decoder((256, 4, 4), outputs=400, side=8)(torch.rand(4, 256, 4, 4)).shape
    torch.Size([4, 400, 8, 8])
    """

    def __init__(self, shape: Sequence[int], outputs: int, side: int, channels: Sequence[int] = (64, 32, 16)):
        super().__init__()
        if not channels or min(channels) < 1:
            raise UsageError(f"decoder_channels={list(channels)} must name one positive number or more.")
        width, *narrower = channels
        if len(shape) == 1:
            first = side
            while first > MAX_FIRST_SIDE:
                first = -(-first // 2)
            entry = [nn.Linear(shape[0], width * first**2, bias=False), nn.Unflatten(1, (width, first, first))]
        else:
            first = min(max(shape[1:]), side)
            entry = [nn.Conv2d(shape[0], width, 1, bias=False)]
            if tuple(shape[1:]) != (first, first):
                entry.insert(0, nn.AdaptiveAvgPool2d(first))
        self.entry = nn.Sequential(*entry, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential()
        while first < side:
            first, (wider, width) = min(2 * first, side), (width, narrower.pop(0) if narrower else width)
            self.blocks.append(Upsample(wider, width, first))
        self.output = nn.Conv2d(width, outputs, 1)

    def forward(self, layer: Tensor) -> Tensor:
        """(B, D) or (B, C, h, w) -> (B, outputs, side, side)."""
        return self.output(self.blocks(self.entry(layer)))


def quantize(view: Tensor, bins: int) -> Tensor:
    """Each pixel's class: every channel in equal bins of [-1, 1], what is outside in the outermost, jointly over the channels.

    Args:
        view: (B, C, h, w).
        bins: of each channel; b of the first channel and b' of the second are the class b * bins + b'.

    Returns:
        (B, h, w) int64 below bins**C.

    >>> import torch
    >>> quantize(torch.tensor([-1.0, -0.1, 0.1, 1.0]).view(1, 1, 1, 4), bins=2)
    tensor([[[0, 0, 1, 1]]])
    """
    channels = ((view + 1) * (bins / 2)).floor().clamp(0, bins - 1).long()
    classes = torch.zeros_like(channels[:, 0])
    for channel in channels.unbind(1):
        classes = classes * bins + channel
    return classes


def absolute_errors(prediction: Tensor, view: Tensor) -> Tensor:
    """L1: (B, C, h, w) twice -> (B, h, w). The best prediction of a pixel is its median given the other view."""
    return (prediction - view).abs().mean(dim=1)


def squared_errors(prediction: Tensor, view: Tensor) -> Tensor:
    """L2: (B, C, h, w) twice -> (B, h, w). The best prediction of a pixel is its mean given the other view."""
    return (prediction - view).square().mean(dim=1)


def bin_errors(logits: Tensor, view: Tensor, bins: int) -> Tensor:
    """Cross-entropy of `quantize`'s classes: logits (B, bins**C, h, w) and a view (B, C, h, w) -> (B, h, w) in nats.

    Its mean is at least H(v2 | v1) of a pixel, so of these errors it alone is about information; H(v2), with which it would make
    a lower bound of I(v1; v2), is not known.
    """
    return F.cross_entropy(logits, quantize(view, bins), reduction="none")


def label_errors(logits: Tensor, planes: Tensor) -> Tensor:
    """Cross-entropy of a label map's classes: logits and planes of 0 and 1, or their averages (B, K, h, w), of which the largest
    counts -> (B, h, w) in nats."""
    return F.cross_entropy(logits, planes.argmax(dim=1), reduction="none")


class Target(NamedTuple):
    """What is predicted of a view: the decoder's number of outputs, and (prediction, view) -> errors (B, h, w)."""

    outputs: int
    errors: Callable[[Tensor, Tensor], Tensor]


def quantized(view: str, channels: int, labels: bool, bins: int) -> Target:
    """The classes of a view: the labels of a label map, or joint bins of one or two channels.

    Raises:
        UsageError: there are more channels, or fewer than two bins.
    """
    if labels:
        return Target(channels, label_errors)
    if bins < 2:
        raise UsageError(f"bins={bins} leaves nothing to predict: set two or more for each channel.")
    if channels > 2:
        raise UsageError(
            f"target='quantized' predicts bins**C classes for C channels, at most two, and the view '{view}' has {channels}: "
            "predict it with target='l1' or 'l2', or split it into views of fewer channels."
        )
    return Target(bins**channels, partial(bin_errors, bins=bins))


#: (name of the view, its channels, whether they are planes of a label map, bins) -> what is predicted of it.
TARGETS: dict[str, Callable[[str, int, bool, int], Target]] = {
    "l1": lambda view, channels, labels, bins: Target(channels, absolute_errors),
    "l2": lambda view, channels, labels, bins: Target(channels, squared_errors),
    "quantized": quantized,
}
