"""InfoMin's configuration: MoCo, MoCo v2, PIRL and InfoMin are points of it."""

from huggingface_hub.dataclasses import strict

from .configuration_instdisc import InstDiscConfig


@strict
class InfoMinConfig(InstDiscConfig):
    r"""Strong views, and keys of a momentum copy (Tian et al. 2020, C.1 to C.3).

    All arguments of `InfoMaxConfig`, `ContrastiveConfig` and `InstDiscConfig` hold as well. `InfoMinConfig.preset(name)` gives

    | preset | what is compared with | negatives | head | temperature | jigsaw |
    |---|---|---|---|---|---|
    | `moco` | the key of the other augmentation | the queue | linear | 0.07 | no |
    | `moco_v2` | the same | the queue | MLP | 0.2 | no |
    | `pirl` | what a bank remembers of the image | the bank | linear | 0.07 | yes |
    | `infomin` | the key of the other augmentation | the queue | MLP | 0.15 | yes |

    The defaults are those of `infomin`. Which augmentations the views are is the recipe's affair, and the larger part of InfoMin.

    Args:
        negatives (`str`): "queue", the keys of the last batches; or as in `ContrastiveConfig`.
        queue_size (`int`): K (65,536 in the paper).
        queue_fill (`str`): "forward", keys of so many images before the first step; or "grow", none: what there is counts, as it
            comes. A stream, whose images cannot be shown before it begins, always grows.
        encoder_momentum (`float`, *optional*): m of the copy that encodes the keys (0.999; 0: the newest weights); None: no copy,
            and the other augmentation is encoded by the encoder itself.
        key_norm (`str`): how the copy's batch norms keep a query from knowing its key by the statistics of a batch: "shuffle", by
            those of random groups; "running", by running ones. See `momentum.MomentumCopy`.
        key_group (`int`): images of a group.
        head_units (`int`): D, of the space in which images are compared (128).
        jigsaw_weight (`float`): w of the pieces of the image in :math:`(1 - w) \hat I(v_1; k) + w \hat I(v_{jigsaw}; k)`; 0: the
            branch is not there, and `jigsaw_values` are not asked for.
        jigsaw_pieces (`int`): of an image (9).

    >>> import hf_infomax
    >>> hf_infomax.InfoMinConfig.preset("moco_v2", queue_size=4096).temperature
    0.2
    """

    model_type = "infomax_infomin"
    presets = {
        "moco": {"head": "linear", "temperature": 0.07, "jigsaw_weight": 0.0},
        "moco_v2": {"temperature": 0.2, "jigsaw_weight": 0.0},
        "pirl": {"negatives": "bank", "encoder_momentum": None, "head": "linear", "temperature": 0.07},
        "infomin": {},
    }

    backbone: str = "dcgan_pooled"
    representation_size: int | None = None
    temperature: float = 0.15
    negatives: str = "queue"
    head: str | None = "mlp"
    head_units: int | None = 128
    queue_size: int = 65_536
    queue_fill: str = "forward"
    encoder_momentum: float | int | None = 0.999
    key_norm: str = "shuffle"
    key_group: int = 32
    jigsaw_weight: float | int = 0.5
    jigsaw_pieces: int = 9


__all__ = ["InfoMinConfig"]
