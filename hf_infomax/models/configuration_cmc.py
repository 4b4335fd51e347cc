"""Contrastive Multiview Coding's configuration."""

from huggingface_hub.dataclasses import strict

from .configuration_infomax import InfoMaxConfig


@strict
class CMCConfig(InfoMaxConfig):
    r"""Contrastive Multiview Coding (Tian et al. 2020): one view of an image against another.

    All arguments of `InfoMaxConfig` hold as well; each view has an encoder of its own, and what users receive is the layer-wise
    concatenation over views.

    Args:
        color_space, views: {L, ab} by default; "ydbdr" with ["Y", "DbDr"] is the paper's other pair, and `ColorSpace.splits`
            lists those of every space.
        representation_size (`int`): D, the size of the space in which the views are compared (128 in the paper).
        temperature (`float`): of the cosine critic, eq. 3 (0.07 in the paper).
        bound (`str`): "infonce", "jsd" or "dv".
        num_negatives (`int`, *optional*): other images each anchor is compared with; None: all of the batch.

    >>> import hf_infomax
    >>> hf_infomax.CMCConfig(color_space="ycbcr", views=["Y", "CbCr"]).temperature
    0.07
    """

    model_type = "infomax_cmc"

    representation_size: int | None = 128
    color_space: str = "lab"
    views: list[str] | tuple[str, ...] = ("L", "ab")
    temperature: float = 0.07
    bound: str = "infonce"
    num_negatives: int | None = None


__all__ = ["CMCConfig"]
