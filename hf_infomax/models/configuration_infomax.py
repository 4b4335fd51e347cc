"""What every method's configuration shares: the views, and the encoder of each."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .errors import choose


@strict
class InfoMaxConfig(PreTrainedConfig):
    r"""The base of all configurations: images, views of them, and a timm backbone for each view.

    Args:
        backbone (`str`): a timm name, the papers' encoders included (see `backbones.py`).
        backbone_kwargs (`dict`): further options of the timm model, such as `{"channels": [32, 64, 128]}`.
        image_size (`int`): side of the square images in pixels.
        representation_size (`int`, *optional*): D, units of the representation y; None: the backbone's own vector.
        patch_size, patch_stride (`int`, *optional*): strided crops (CMC, C.1): each view is cut into overlapping patches, which are
            encoded one by one (see `encoder.StridedCrops`); None: the image goes through whole.
        color_space (`str`): the space in which the views are read: "rgb", "linear_rgb", "xyz", "lab", "ycbcr", "ydbdr", "yuv",
            "hsv" or "hed".
        views (`list[str]`): each a run of the space's channels, such as ["L", "ab"], or one of `columns`; each gets an encoder of
            its own.
        columns (`dict`, *optional*): the views that come beside the image under their own names, and what an encoder is shown of
            them: {"depth": {"channels": 1, "mean": 4000, "std": 2000}, "semantic": {"classes": 6}, "next_frame": {"like": "RGB"}};
            see `views.Column`.
        feature_views (`list[str]`, *optional*): the views whose representations users receive, concatenated; None: those that
            the image alone gives.
        image_mean, image_std (`list[float]`): applied inside the model to RGB in [0, 1]; other spaces are scaled to [-1, 1].
        classifier_layer (`str`, *optional*): the layer that `ForImageClassification` reads; None: the global vector.
    """

    model_type = "infomax"

    #: Name -> the fields that make it a point of the method's space with a name of its own.
    presets = {}

    backbone: str = "dim_dcgan"
    backbone_kwargs: dict | None = None
    image_size: int = 32
    representation_size: int | None = 64
    patch_size: int | None = None
    patch_stride: int | None = None
    color_space: str = "rgb"
    views: list[str] | tuple[str, ...] = ("RGB",)
    columns: dict | None = None
    feature_views: list[str] | tuple[str, ...] | None = None
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    classifier_layer: str | None = None

    @classmethod
    def preset(cls, name: str, **fields: Any) -> "InfoMaxConfig":
        """A configuration by the name that the papers give it, such as "ann+"; `fields` are further ones, or others than its own.

        Raises:
            UsageError: the method has no such preset.
        """
        return cls(**choose("preset", name, cls.presets) | fields)


__all__ = ["InfoMaxConfig"]
