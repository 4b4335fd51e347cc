"""Contrastive Multiview Coding's configuration."""

from huggingface_hub.dataclasses import strict

from .configuration_contrastive import REGIONS, ContrastiveConfig


@strict
class CMCConfig(ContrastiveConfig):
    r"""Contrastive Multiview Coding (Tian et al. 2020): the views of an image against each other.

    All arguments of `InfoMaxConfig` and `ContrastiveConfig` hold as well; each view has an encoder of its own, and what users
    receive is the layer-wise concatenation over views. The presets "cmc-ball", "cmc-ann", "cmc-ball+" and "cmc-ann+" have the
    negatives of Wu et al. 2020, from the part of the other view's bank that is like the positive.

    Args:
        color_space, views: {L, ab} by default; "ydbdr" with ["Y", "DbDr"] is the paper's other pair, and `ColorSpace.splits`
            lists those of every space. Any number of views from two on, such as ["L", "a", "b"] or ["L", "ab", "depth"].
        core_view (`str`, *optional*): the view that each of the others is compared with (eq. 7); None: all pairs (eq. 8).
        representation_size (`int`): D, the size of the space in which the views are compared (128 in the paper).
        bound (`str`): "infonce" (the m+1-way softmax), "nce" (eq. 10 and 11, with negatives="bank"), "jsd" or "dv".
        num_negatives (`int`, *optional*): None: 16,384 of a bank as in the paper, or as many as there are.
        contrast (`str`): "global", vector against vector; or "patch" (A.2), the global vector of one view against every location of
            another's `local_layer`, by an encode-and-dot critic. With a single view this is DIM(L), as the paper says (4.3.1).
        local_layer (`str`, *optional*): of "patch"; None: the next-to-last map, or `patches` where there are strided crops.
        dot_units (`int`): of "patch", the units in which locations and vectors are compared.

    >>> import hf_infomax
    >>> hf_infomax.CMCConfig(color_space="ycbcr", views=["Y", "CbCr"]).temperature
    0.07
    """

    model_type = "infomax_cmc"
    presets = {"cmc": {"negatives": "bank"}} | {f"cmc-{name}": fields for name, fields in REGIONS.items()}

    representation_size: int | None = 128
    color_space: str = "lab"
    views: list[str] | tuple[str, ...] = ("L", "ab")
    core_view: str | None = None
    contrast: str = "global"
    local_layer: str | None = None
    dot_units: int = 2048


__all__ = ["CMCConfig"]
