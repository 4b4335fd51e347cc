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
            lists those of every space. Any number of views from two on, such as ["L", "a", "b"] or ["L", "ab", "depth"].
        core_view (`str`, *optional*): the view that each of the others is compared with (eq. 7); None: all pairs (eq. 8).
        representation_size (`int`): D, the size of the space in which the views are compared (128 in the paper).
        temperature (`float`): of the cosine critic, eq. 3 (0.07 in the paper).
        bound (`str`): "infonce" (the m+1-way softmax), "nce" (eq. 10 and 11, with a memory bank), "jsd" or "dv".
        negatives (`str`): "batch", the other images of the batch; or "bank", samples of the whole data that a memory bank
            remembers (3.4), for which a run needs its training state.
        num_negatives (`int`, *optional*): m, other images each anchor is compared with; None: all of the batch, and with a bank
            16,384 as in the paper, or as many as there are.
        shared_negatives (`bool`): with a bank, one draw for the batch instead of one for each image; far faster.
        bank_momentum (`float`): of the bank's rows (0.5 in the paper).
        bank_positive (`str`): the anchor's positive: "bank", the other view as the bank remembers it, as its negatives are
            known; "batch", as it is encoded now. A critic can tell now from then: on CIFAR-10 that is all "batch" learned.
        bank_fill (`str`): "forward", a forward pass before the first step; "random", unit vectors, which are noise for an epoch.
        bank_dtype (`str`): "float32" or "bfloat16", of the rows.
        z_momentum (`float`): of the running mean of Z in "nce".
        contrast (`str`): "global", vector against vector; or "patch" (A.2), the global vector of one view against every location of
            another's `local_layer`, by an encode-and-dot critic. With a single view this is DIM(L), as the paper says (4.3.1).
        local_layer (`str`, *optional*): of "patch"; None: the next-to-last map, or `patches` where there are strided crops.
        dot_units (`int`): of "patch", the units in which locations and vectors are compared.

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
    negatives: str = "batch"
    num_negatives: int | None = None
    shared_negatives: bool = False
    bank_momentum: float | int = 0.5
    bank_positive: str = "bank"
    bank_fill: str = "forward"
    bank_dtype: str = "float32"
    z_momentum: float | int = 0.99
    contrast: str = "global"
    local_layer: str | None = None
    dot_units: int = 2048


__all__ = ["CMCConfig"]
