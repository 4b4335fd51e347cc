"""What every method's configuration shares: the views, and the encoder of each."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class InfoMaxConfig(PreTrainedConfig):
    r"""The base of all configurations: images, views of them, and a timm backbone for each view.

    Args:
        backbone (`str`): a timm name, the papers' encoders included (see `backbones.py`).
        backbone_kwargs (`dict`): further options of the timm model, such as `{"channels": [32, 64, 128]}`.
        image_size (`int`): side of the square images in pixels.
        representation_size (`int`, *optional*): D, units of the representation y; None: the backbone's own vector.
        color_space (`str`): the space in which the views are read: "rgb", "lab" or "ycbcr".
        views (`list[str]`): each a run of the space's channels, such as ["L", "ab"]; each gets an encoder of its own.
        image_mean, image_std (`list[float]`): applied inside the model to RGB in [0, 1]; other spaces are scaled to [-1, 1].
        classifier_layer (`str`, *optional*): the layer that `ForImageClassification` reads; None: the global vector.
    """

    model_type = "infomax"

    backbone: str = "dim_dcgan"
    backbone_kwargs: dict | None = None
    image_size: int = 32
    representation_size: int | None = 64
    color_space: str = "rgb"
    views: list[str] | tuple[str, ...] = ("RGB",)
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    classifier_layer: str | None = None


__all__ = ["InfoMaxConfig"]
