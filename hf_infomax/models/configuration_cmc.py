"""Contrastive Multiview Coding's configuration."""

from huggingface_hub.dataclasses import strict

from .configuration_infomax import InfoMaxConfig


@strict
class CMCConfig(InfoMaxConfig):
    r"""Contrastive Multiview Coding (Tian et al. 2020): the views of an image against each other.

    All arguments of `InfoMaxConfig` hold as well; each view has an encoder of its own, and what users receive is the layer-wise
    concatenation over views.

    Args:
        color_space, views: {L, ab} by default; "ydbdr" with ["Y", "DbDr"] is the paper's other pair, and `ColorSpace.splits`
            lists those of every space. Any number of views from two on, such as ["L", "a", "b"].
        core_view (`str`, *optional*): the view that each of the others is compared with (eq. 7); None: all pairs (eq. 8).
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
    core_view: str | None = None
    temperature: float = 0.07
    bound: str = "infonce"
    num_negatives: int | None = None


__all__ = ["CMCConfig"]
