"""Instance discrimination's configuration: IR, SimCLR, BALL, ANN, LA and their annealed forms are points of it."""

from huggingface_hub.dataclasses import strict

from .configuration_contrastive import REGIONS, ContrastiveConfig


@strict
class InstDiscConfig(ContrastiveConfig):
    r"""Instance discrimination as mutual information between augmentations of an image (Wu et al. 2020).

    All arguments of `InfoMaxConfig` and `ContrastiveConfig` hold as well. `InstDiscConfig.preset(name)` gives

    | preset | views | negatives | positives |
    |---|---|---|---|
    | `ir` | one, and what the bank remembers of others (eq. 5) | of the bank | own |
    | `simclr` | two (eq. 4 and 9, no bank), compared behind an MLP | of the batch | own |
    | `ball` | as `ir` | its background neighbours | own |
    | `ann` | as `ir` | those that are not its close neighbours | own |
    | `la` | as `ir` | as `ball` | own and close neighbours |
    | `ball+`, `ann+` | as `ir` | annealed | own |

    The defaults are those of `ir`. SimCLR here is the paper's eq. 4: of the B - 1 other images one view each; NT-Xent has 2 B - 2.

    Args:
        num_negatives (`int`, *optional*): None: 4,096 of a bank, all of the batch, and all of a ball.
        representation_size (`int`): D, of the space in which images are compared (128 in the paper).
        critic (`str`): the five designs of appendix D: "cosine" (the dot product of unit vectors over the temperature), "bilinear",
            "linear", "mlp1" and "mlp2" (one and two hidden layers on the concatenation).
        critic_units (`int`): hidden units of the last two (128).
        head (`str`, *optional*): "linear", or "mlp" with one hidden layer as SimCLR has, between the representation y, which users
            receive, and what is compared; None: y itself is compared.
        head_units (`int`, *optional*): of its output; None: D.
        head_hidden_units (`int`, *optional*): of its hidden layer; None: as many as y has.

    >>> import hf_infomax
    >>> hf_infomax.InstDiscConfig.preset("ann+", anneal_epochs=30).negatives
    'annulus'
    """

    model_type = "infomax_instdisc"
    presets = {
        "ir": {},
        "simclr": {"negatives": "batch", "head": "mlp"},
        "la": {"negatives": "ball", "positives": "close", "warmup_epochs": 10},
    } | REGIONS

    representation_size: int | None = 128
    negatives: str = "bank"
    critic: str = "cosine"
    critic_units: int = 128
    head: str | None = None
    head_units: int | None = None
    head_hidden_units: int | None = None


__all__ = ["InstDiscConfig"]
