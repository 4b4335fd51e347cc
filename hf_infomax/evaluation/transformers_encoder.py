"""Any vision model of transformers as an encoder of named layers: hidden states as maps, and one global vector."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from hf_infomax.models.errors import UsageError

from .features import evaluation_mode

#: Of images that no processor describes: ImageNet's, as timm has them as well.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_SIZE = 224


@dataclass(frozen=True)
class TransformersEncoderConfig:
    """What a `TransformersEncoder` is built of besides weights: the model's configuration and how images become its input."""

    model: PreTrainedConfig
    image_size: int  #: side of the square images, in pixels
    image_mean: tuple[float, ...] = IMAGENET_MEAN  #: of RGB in [0, 1]; applied inside
    image_std: tuple[float, ...] = IMAGENET_STD
    blue_first: bool = False  #: the model takes BGR
    pooler: bool = True  #: its `pooler_output` is trained, and not what a load has drawn for want of weights

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return vars(self) | {"model": self.model.to_dict()}


def square_side(value: Any) -> int | None:
    """The side that a configuration or a processor states: a number, (height, width), or {"height", "width"}; None if none.

    Raises:
        UsageError: it is not that of a square.

    >>> square_side(224), square_side([16, 16]), square_side({"shortest_edge": 256}), square_side(None)
    (224, 16, 256, None)
    """
    if value is None or isinstance(value, int):
        return value
    sides = set(value if isinstance(value, Sequence) else dict(value).values())
    if len(sides) > 1:
        raise UsageError(f"The model takes images or patches of {value} pixels: choose one that takes squares.")
    return next(iter(sides), None)


def describe(config: PreTrainedConfig, processor: Any | None, pooler: bool = True) -> TransformersEncoderConfig:
    """How a model wants its images.

    Args:
        config: of the model.
        processor: the image processor beside the checkpoint; its size, mean, standard deviation and order of channels hold.
            None: the configuration's size, else 224, and ImageNet's mean and deviation.
        pooler: see `TransformersEncoderConfig`.
    """
    of_vision = getattr(config, "vision_config", config)
    stated = square_side(getattr(of_vision, "image_size", None)) or DEFAULT_SIZE
    if processor is None:
        return TransformersEncoderConfig(config, stated, pooler=pooler)
    cropped = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", False):
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    return TransformersEncoderConfig(
        config,
        square_side(cropped) or square_side(getattr(processor, "size", None)) or stated,
        mean,
        std,
        blue_first=bool(getattr(processor, "do_flip_channel_order", False)),
        pooler=pooler,
    )


def tokens_to_map(states: Tensor, patches: int) -> Tensor:
    """A sequence of tokens as the map that it lays out, without what stands before it.

    Class, distillation and register tokens come first in every model of transformers, so that

        prefix = T - h w

    Args:
        states: (B, T, C), or a map (B, C, h, w), which is left as it is.
        patches: patches along a side of the image; a sequence too short for them is that of a later stage, and square.

    Returns:
        (B, C, h, w).

    >>> (
    ...     tokens_to_map(torch.zeros(2, 1 + 14 * 14, 8), patches=14).shape,
    ...     tokens_to_map(torch.zeros(2, 49, 8), patches=14).shape,
    ... )
    (torch.Size([2, 8, 14, 14]), torch.Size([2, 8, 7, 7]))
    """
    if states.dim() == 4:
        return states
    side = min(patches, math.isqrt(states.shape[1]))
    return states[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))


class TransformersEncoder(nn.Module):
    """A vision model of transformers with the interface of this package's encoders.

    Its layers, from the input to the output: `stage<i>`, which is `hidden_states[i]` as a map (0 is what the embeddings or the
    stem give, where the model tells); `conv`, the last hidden state, after the final norm where there is one; `pool`, the
    global vector: the model's pooled output, else its class token, else the mean of `conv`. Of a model of images and text it
    is the tower of images.

    Args:
        model: as `AutoModel` gives it.
        config: how its images are prepared, see `describe`.

    Attributes:
        feature_layers: the names, in order.
        feature_views: what it sees of an image: all of it.

    Raises:
        UsageError: the model takes no images, or something besides; or it has no hidden states.

    >>> from transformers import ViTConfig
    >>> vit = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
    >>> encoder = TransformersEncoder(AutoModel.from_config(vit), describe(vit, None))
    >>> {name: tuple(layer.shape[1:]) for name, layer in encoder.layers(torch.rand(2, 3, 32, 32)).items()}
    {'stage0': (32, 4, 4), 'stage1': (32, 4, 4), 'conv': (32, 4, 4), 'pool': (32,)}
    """

    feature_views = ("RGB",)

    def __init__(self, model: PreTrainedModel, config: TransformersEncoderConfig):
        super().__init__()
        tower = getattr(model, "vision_model", model)
        if getattr(tower, "main_input_name", None) != "pixel_values":
            raise UsageError(f"{type(model).__name__} has no encoder of images: choose a vision model.")
        self.config = config
        self.model = tower
        self.patch_size = square_side(getattr(tower.config, "patch_size", None)) or 1
        for name, values in (("mean", config.image_mean), ("std", config.image_std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        with evaluation_mode(self), torch.no_grad():
            try:
                self.feature_layers = tuple(self.layers(torch.zeros(1, 3, config.image_size, config.image_size)))
            except UsageError:
                raise
            except (TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise UsageError(
                    f"{type(tower).__name__} gives no layers for one RGB image of {config.image_size} pixels "
                    f"({str(error).partition(chr(10))[0]}): choose a model that takes nothing but images."
                ) from error

    def layers(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """RGB in [0, 1], (B, 3, H, W) -> name -> map (B, C, h, w), and last the global vector (B, D).

        Raises:
            UsageError: the model has no hidden states, or takes images of another size alone; or they are not square.
        """
        outputs = self._outputs(pixel_values)
        last = outputs.last_hidden_state
        hidden = outputs.get("reshaped_hidden_states") or outputs.get("hidden_states")
        if not hidden:
            raise UsageError(f"{type(self.model).__name__} gives no hidden states: choose a plain vision model.")
        patches = pixel_values.shape[-1] // self.patch_size
        # Some count the image itself among them. The last state is read once, and where it is final.
        stages = [states for states in hidden if states.shape != pixel_values.shape][:-1]
        maps = {f"stage{place}": tokens_to_map(states, patches) for place, states in enumerate(stages)}
        maps["conv"] = tokens_to_map(last, patches)
        return {**maps, "pool": self._global_vector(outputs, maps["conv"])}

    def _outputs(self, pixel_values: Tensor) -> Any:
        height, width = pixel_values.shape[-2:]
        if height != width:
            raise UsageError(f"The encoder takes square images, not {height}x{width} pixels: crop or resize them.")
        images = pixel_values.flip(1) if self.config.blue_first else pixel_values
        try:
            return self.model(pixel_values=(images - self.mean) / self.std, output_hidden_states=True, return_dict=True)
        except ValueError as error:
            size = self.config.image_size
            if height == size:
                raise
            raise UsageError(
                f"The encoder takes images of {size}x{size} pixels, not {height}x{width}: resize them."
            ) from error

    def _global_vector(self, outputs: Any, final: Tensor) -> Tensor:
        pooled, last = outputs.get("pooler_output"), outputs.last_hidden_state
        if self.config.pooler and pooled is not None:
            return pooled.flatten(1)  # (B, D); some leave it (B, D, 1, 1)
        has_class_token = last.dim() == 3 and last.shape[1] > final[0, 0].numel()
        return last[:, 0] if has_class_token else final.mean(dim=(-2, -1))

    def random_twin(self) -> "TransformersEncoder":
        """The same architecture with fresh weights."""
        return TransformersEncoder(AutoModel.from_config(self.config.model), self.config)
