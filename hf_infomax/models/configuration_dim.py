"""Deep InfoMax's configuration."""

from huggingface_hub.dataclasses import strict

from .configuration_infomax import InfoMaxConfig


@strict
class DIMConfig(InfoMaxConfig):
    r"""Deep InfoMax (Hjelm et al. 2019): input against representation, globally, locally, or both.

    Its objective is eq. 8: alpha times the global bound, plus beta times the local one, plus gamma times prior matching.
    The paper's settings: DIM(G) = (1, 0, 1), DIM(L) = (0, 1, 0.1), DIM(L+G) = (0.5, 0.1, gamma). The text gives no gamma for the
    last; `dim_local_global_cifar10` uses 0.1, that of DIM(L). All arguments of `InfoMaxConfig` hold as well. Occlusion, the other
    structure of Table 4, is a choice of views: of the recipe `dim_occluded` y comes from the occluded image.

    Args:
        alpha, beta, gamma (`float`): the weights; a part of weight zero is not built.
        bound (`str`): "infonce", "jsd" or "dv".
        num_negatives (`int`, *optional*): other images each y is compared with; None: all of the batch.
        local_layer (`str`, *optional*): the local map; None: the next-to-last, 8x8x128 on the CIFAR encoder.
        local_critic (`str`): "encode_and_dot" or "concat" (concat-and-convolve).
        dot_units (`int`): units of encode-and-dot (Tables 7, 8).
        dot_shortcut (`str`): "linear" as A.1's text says, "relu" as Tables 7 and 8 print.
        concat_units (`int`): hidden units of the concatenating critics (Tables 5, 6).
        prior (`str`): "uniform" (on sigmoid(y)), "gaussian", "ball" or "sphere" (on y).
        prior_units (`list[int]`): hidden units of the prior's discriminator (Table 9).
        prior_saturating (`bool`): the encoder minimises E[log(1 - D)] as eq. 7 prints, instead of -E[log D].
        prior_learning_rate (`float`): the discriminator's learning rate as a multiple of the encoder's.
        absolute_coordinates, relative_coordinates (`float`): the weights of telling where in the local map a feature is, and the
            way from one to another, given y (4.3); a task of weight zero is not built.
        coordinate_units (`list[int]`): hidden units of their predictors (A.6).

    >>> import hf_infomax
    >>> hf_infomax.DIMConfig(alpha=1.0, beta=0.0, gamma=1.0).bound  # DIM(G)
    'infonce'
    """

    model_type = "infomax_dim"

    alpha: float | int = 0.0
    beta: float | int = 1.0
    gamma: float | int = 0.1
    bound: str = "infonce"
    num_negatives: int | None = None
    local_layer: str | None = None
    local_critic: str = "encode_and_dot"
    dot_units: int = 2048
    dot_shortcut: str = "linear"
    concat_units: int = 512
    prior: str = "uniform"
    prior_units: list[int] | tuple[int, ...] = (1000, 200)
    prior_saturating: bool = False
    prior_learning_rate: float | int = 1.0
    absolute_coordinates: float | int = 0.0
    relative_coordinates: float | int = 0.0
    coordinate_units: list[int] | tuple[int, ...] = (512, 512)


__all__ = ["DIMConfig"]
