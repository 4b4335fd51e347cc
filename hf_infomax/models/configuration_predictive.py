"""Predictive learning's configuration."""

from huggingface_hub.dataclasses import strict

from .configuration_infomax import InfoMaxConfig


@strict
class PredictiveConfig(InfoMaxConfig):
    r"""Predictive learning (CMC, 3.1, 4.3.3): one view of an image from the representation of another.

    What CMC is compared with, over CMC's own views and encoders. All arguments of `InfoMaxConfig` hold as well. A view that is
    predicted and predicts none has no encoder; what users receive is the layer-wise concatenation over the others.

    Split-Brain autoencoders (Zhang et al. 2017) are `target="quantized"` and `decode_from="conv"`: both halves of Lab, each from
    the other, fully convolutionally. They quantise ab on a grid of 10, of which 313 squares are colours, and L into 100 bins. Here
    every channel has equally many bins of its own range: 20 make squares of about 10 of ab, of which 280 of 400 are colours (the
    others are classes that never occur), and steps of 5 of L.

    Args:
        color_space, views: {L, ab} by default, as in CMC; label maps, depth and normals come by `columns`.
        core_view (`str`, *optional*): the view that predicts each of the others, and is predicted by them; None: all pairs.
        pairs (`list[str]`, *optional*): instead, the directions themselves: "L->ab" predicts ab from L.
        representation_size (`int`): D, the size of the vector that each encoder ends in (128 in CMC).
        target (`str`): "l1", "l2" (squared), or "quantized": cross-entropy over bins of the values.
        bins (`int`): bins of each channel for "quantized"; two channels have bins**2 classes, a label map has its own.
        target_size (`int`, *optional*): side in pixels at which a view is predicted, averaged down to it; None: `image_size`, or a
            quarter of it for "quantized".
        decode_from (`str`, *optional*): the layer that the decoder reads; None: the global vector (Figure 2), so that every layer
            is trained. The layers after another one stay as they were initialised.
        decoder_channels (`list[int]`): of the decoder's first map, then of each map twice as large; the last is repeated.

    >>> import hf_infomax
    >>> split_brain = hf_infomax.PredictiveConfig(target="quantized", decode_from="conv")
    >>> colorization = hf_infomax.PredictiveConfig(pairs=["L->ab"], target="l2")
    """

    model_type = "infomax_predictive"

    representation_size: int | None = 128
    color_space: str = "lab"
    views: list[str] | tuple[str, ...] = ("L", "ab")
    core_view: str | None = None
    pairs: list[str] | tuple[str, ...] | None = None
    target: str = "l2"
    bins: int = 20
    target_size: int | None = None
    decode_from: str | None = None
    decoder_channels: list[int] | tuple[int, ...] = (64, 32, 16)


__all__ = ["PredictiveConfig"]
