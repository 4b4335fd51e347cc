"""The PreTrainedModel base of all methods: views and encoders, named features, typed outputs, checkpoints that travel."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, ViTImageProcessor
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import ModelOutput, can_return_tuple

from .bounds import BOUNDS, IN_NATS
from .configuration_infomax import InfoMaxConfig
from .encoder import Encoder, build_encoder, flatten_layer
from .errors import UsageError, choose, unknown_name
from .views import Views


@dataclass
class PreTrainingOutput(ModelOutput):
    """What every `ForPreTraining` returns.

    Args:
        loss: scalar, what is minimised: minus the weighted bounds, plus the weighted extra terms.
        bound: scalar, the lower bound of the mutual information in nats (the mean where there are several), without gradient;
            None where the estimator is not one, as JSD.
        parts: the bounds and the extra terms by name, unweighted, without gradient.
        embeddings: what the critic compares, view -> (B, D), without gradient, where a training state keeps it.
        sample_index: (B,) int64, the samples of this batch, for the same.
        present: view -> (B,) bool, the samples that have it, where some are missing.
    """

    loss: Tensor | None = None
    bound: Tensor | None = None
    parts: dict[str, Tensor] | None = None
    embeddings: dict[str, Tensor] | None = None
    sample_index: Tensor | None = None
    present: dict[str, Tensor] | None = None

    @classmethod
    def compose(
        cls,
        bound: str | None,
        bounds: dict[str, tuple[float, Tensor]],
        extras: dict[str, tuple[float, Tensor]] | None = None,
        told: dict[str, Tensor] | None = None,
    ) -> "PreTrainingOutput":
        """Sum (weight, value) pairs: `bounds` are maximised, `extras` minimised; `bound` is the estimator's name, if any. What is
        `told` besides is among the parts; an "infonce" there is the bound, where what is maximised need not be one."""
        extras = extras or {}
        loss = sum(weight * value for weight, value in extras.values()) - sum(w * value for w, value in bounds.values())
        parts = {name: value.detach() for name, (_, value) in {**bounds, **extras}.items()}
        mean = torch.stack([parts[name] for name in bounds]).mean() if bounds and bound in IN_NATS else None
        told = told or {}
        return cls(loss=loss, bound=told.get("infonce", mean), parts=parts | told)


class InfoMaxPreTrainedModel(PreTrainedModel):
    """What is common to a method's encoder, its pretraining model and its classifier: initialisation, saving, training hooks."""

    config_class = InfoMaxConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over the batch: the Trainer divides it by its accumulation steps

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """transformers' `from_pretrained`, with weights that give the outputs they were saved with, to the last bit.

        A tensor read from a file begins where the file has it; some CPU kernels sum in another order where that is not a
        multiple of 64 bytes. Such tensors are copied into memory of their own.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info=True
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
                tensor.data = tensor.data.clone()
        return loaded

    @cached_property
    def _backbone_modules(self) -> set[int]:
        encoders = [module for module in self.modules() if isinstance(module, Encoder)]
        return {id(module) for encoder in encoders for module in encoder.backbone.modules()}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # timm has initialised its own modules; transformers' default would overwrite them. Their non-persistent buffers come
        # back uninitialised from a load on the meta device. Heads that a checkpoint lacks are what is left to initialise.
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
        elif id(module) not in self._backbone_modules and hasattr(module, "reset_parameters"):
            module.reset_parameters()

    def _set_gradient_checkpointing(self, enable: bool = True, **_: Any) -> None:
        for module in self.modules():
            if isinstance(module, Encoder):
                if not hasattr(module.backbone, "set_grad_checkpointing"):
                    raise UsageError(
                        f"Backbone '{self.config.backbone}' has no gradient checkpointing: train without it."
                    )
                module.backbone.set_grad_checkpointing(enable)

    @property
    def wants_replacement(self) -> bool:
        """Whether the images of a batch are to be drawn from all of them, not from those that the epoch has not yet shown."""
        return False

    def training_state(self, num_samples: int | None, device: torch.device) -> Any:
        """What a run needs and a published model does not (banks, queues, momentum copies): None where nothing is."""
        return None

    def parameter_groups(self, learning_rate: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimizer: each part's own multiple of the learning rate; no weight decay on biases, norms and what
        the timm backbone exempts (a ViT's tokens and positions)."""
        exempt = {
            f"{prefix}.backbone.{name}"
            for prefix, module in self.named_modules()
            if isinstance(module, Encoder) and hasattr(module.backbone, "no_weight_decay")
            for name in module.backbone.no_weight_decay()
        }
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                key = (self.learning_rate_scale(name), parameter.dim() > 1 and name not in exempt)
                groups.setdefault(key, []).append(parameter)
        return [
            {"params": parameters, "lr": learning_rate * scale, "weight_decay": weight_decay if decays else 0.0}
            for (scale, decays), parameters in groups.items()
        ]

    def learning_rate_scale(self, parameter_name: str) -> float:
        """The multiple of the learning rate that a parameter is trained with; methods with a min-max override it."""
        return 1.0

    def image_processor(self) -> ViTImageProcessor:
        """The matching preprocessing: resize and rescale to [0, 1]; mean and standard deviation are inside the model."""
        size = {"height": self.config.image_size, "width": self.config.image_size}
        return ViTImageProcessor(size=size, do_normalize=False, do_convert_rgb=True)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save weights, configuration, image processor and the source files, so that the folder loads anywhere.

        A folder of any of a method's classes names all of them, so `AutoModel` reads the encoder from a pretraining checkpoint.
        """
        self.config.auto_map = auto_map(self.config, type(self).__module__)
        if kwargs.get("is_main_process", True):  # first, for the base class may push the folder when it is done
            os.makedirs(save_directory, exist_ok=True)
            custom_object_save(self, save_directory)
            self.image_processor().save_pretrained(save_directory)
        super().save_pretrained(save_directory, **kwargs)


def auto_map(config: InfoMaxConfig, modeling_module: str) -> dict[str, str]:
    """The Auto classes of a method -> the classes in the files that travel with its checkpoints."""
    module = modeling_module.rpartition(".")[2]
    method = type(config).__name__.removesuffix("Config")
    return {
        "AutoConfig": f"{type(config).__module__.rpartition('.')[2]}.{method}Config",
        "AutoModel": f"{module}.{method}Model",
        "AutoModelForPreTraining": f"{module}.{method}ForPreTraining",
        "AutoModelForImageClassification": f"{module}.{method}ForImageClassification",
    }


class InfoMaxModel(InfoMaxPreTrainedModel):
    """Views and their encoders: what a method's `Model` is. Users receive the concatenation over the configuration's
    `feature_views`, layer by layer, or ask for one view's own representation by its name."""

    # The heads of a pretraining checkpoint are not needed here, and their absence is no news.
    _keys_to_ignore_on_load_unexpected = [
        r"critic",
        r"^prior\.",
        r"^classifier\.",
        r"^embed_",
        r"^decoders\.",
        r"^head\.",
        r"^jigsaw\.",
        r"^coordinates\.",
    ]

    def __init__(self, config: InfoMaxConfig):
        super().__init__(config)
        self.views = Views(config)
        self.encoders = nn.ModuleDict({name: build_encoder(config, n) for name, n in self.views.channels.items()})
        self.feature_views = tuple(config.feature_views or self.views.of_the_image or config.views)
        for name in self.feature_views:
            if name not in self.views.encoders:
                raise unknown_name("view of feature_views", name, config.views)
        self.post_init()

    def encoder_of(self, view: str) -> nn.Module:
        """The encoder of a view: its own, or that of the view that it is like."""
        return self.encoders[self.views.encoders[view]]

    @property
    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> (C, h, w) or (D,) of every layer, concatenated over `feature_views`."""
        shapes = [self.encoder_of(view).shapes for view in self.feature_views]
        return {name: (sum(s[name][0] for s in shapes), *shapes[0][name][1:]) for name in shapes[0]}

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """The names that `features` accepts, from the input to the output, such as ("conv1", "conv2", "conv", "fc", "y")."""
        return tuple(self.layer_shapes)

    def encode(
        self, pixel_values: Tensor | None, views: Sequence[str] | None = None, **columns: Tensor
    ) -> dict[str, dict[str, Tensor]]:
        """Each view's own layers.

        Args:
            pixel_values: RGB in [0, 1] (B, 3, H, W); None where no view is read from it.
            views: the views to encode; None: `feature_views`.
            columns: the views that come beside the image, (B, C, H, W), by name.

        Returns:
            View name -> layer name -> map (B, C, h, w) or vector (B, D).

        Raises:
            UsageError: there is no such view, the batch lacks it, or views do not belong together.
        """
        shown = self.views(pixel_values, self.feature_views if views is None else views, **columns)
        return {name: self.encoder_of(name)(view) for name, view in shown.items()}

    def layers(
        self, pixel_values: Tensor | None, views: Sequence[str] | None = None, **columns: Tensor
    ) -> dict[str, Tensor]:
        """Layer name -> map or vector, concatenated over views; the arguments are those of `encode`."""
        encoded = list(self.encode(pixel_values, views, **columns).values())
        if len(encoded) == 1:
            return encoded[0]  # joining one thing would copy every map
        return {name: torch.cat([layers[name] for layers in encoded], dim=1) for name in encoded[0]}

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor | None = None, output_hidden_states: bool | None = None, **columns: Any
    ) -> BaseModelOutputWithPooling:
        """RGB in [0, 1] (B, 3, H, W) -> `last_hidden_state` (B, C, h, w), the last map, and `pooler_output` (B, D), the
        global vector; `hidden_states` are the maps of all stages when asked for."""
        layers = self.layers(pixel_values, **columns)
        maps = [layer for layer in layers.values() if layer.dim() == 4]
        return BaseModelOutputWithPooling(
            last_hidden_state=layers["conv"],
            pooler_output=layers[self.feature_layers[-1]],
            hidden_states=tuple(maps) if output_hidden_states else None,
        )

    @torch.no_grad()
    def features(
        self,
        pixel_values: Tensor | None,
        layer: str | None = None,
        pool: str | int | None = None,
        views: Sequence[str] | None = None,
        **columns: Tensor,
    ) -> Tensor:
        """One layer as feature vectors, for probes, neighbours and retrieval.

        Args:
            pixel_values: RGB in [0, 1], (B, 3, H, W).
            layer: one of `feature_layers`; None: the last, the global vector.
            pool: see `flatten_layer`: by default a map of at most 4,096 values is flattened, a larger one averaged.
            views, columns: as in `encode`; `views=["L"]` is the representation of L alone.

        Returns:
            (B, F) float32, without gradient.

        Raises:
            UsageError: there is no such layer or view.
        """
        layer = layer or self.feature_layers[-1]
        if layer not in self.layer_shapes:
            raise unknown_name("layer", layer, self.feature_layers)
        return flatten_layer(self.layers(pixel_values, views, **columns)[layer], pool)


class InfoMaxForPreTraining(InfoMaxPreTrainedModel):
    """What the methods' `ForPreTraining` share: the encoder under the name `model`, its layers, and the bound by name."""

    model_class: type[InfoMaxModel]
    #: Bounds that need more than scores, by name; the method gives it to them.
    further_bounds: dict[str, Callable[..., Tensor]] = {}

    def __init__(self, config: InfoMaxConfig):
        super().__init__(config)
        self.model = self.model_class(config)
        if hasattr(config, "bound"):  # predictive learning has none
            self.bound = choose("bound", config.bound, BOUNDS | self.further_bounds)

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return self.model.feature_layers

    def encode(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, Tensor]]:
        return self.model.encode(*args, **kwargs)

    def layers(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return self.model.layers(*args, **kwargs)

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.model.features(*args, **kwargs)


class InfoMaxForImageClassification(InfoMaxPreTrainedModel):
    """A linear classifier on a named layer: a saved linear probe, or the head of a fine-tuned encoder."""

    model_class: type[InfoMaxModel]

    def __init__(self, config: InfoMaxConfig):
        super().__init__(config)
        self.model = self.model_class(config)
        layer = config.classifier_layer or self.model.feature_layers[-1]
        if layer not in self.model.layer_shapes:
            raise unknown_name("classifier_layer", layer, self.model.feature_layers)
        self.layer = layer
        features = flatten_layer(torch.empty(1, *self.model.layer_shapes[layer], device="meta")).shape[1]
        self.classifier = nn.Linear(features, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, **columns: Any
    ) -> ImageClassifierOutput:
        """RGB in [0, 1] (B, 3, H, W) -> `logits` (B, num_labels), and the cross-entropy as `loss` where labels (B,) are given."""
        logits = self.classifier(flatten_layer(self.model.layers(pixel_values, **columns)[self.layer]))
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


__all__ = ["InfoMaxForImageClassification", "InfoMaxForPreTraining", "InfoMaxModel", "PreTrainingOutput"]
