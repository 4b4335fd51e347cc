"""Any checkpoint -> an encoder whose layers are read by name: a run of this package, a timm model, a model of transformers."""

import textwrap
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig, ViTConfig

import hf_infomax
from hf_infomax.models.errors import UsageError, unknown_name
from hf_infomax.models.modeling_infomax import InfoMaxModel

from .transformers_encoder import TransformersEncoder, describe

#: Model type -> the configuration that it is read as. MAE's own encoder drops three quarters of the patches at random and
#: shuffles the rest; a ViT of the same weights sees all of them.
READ_AS: dict[str, type[PreTrainedConfig]] = {"vit_mae": ViTConfig}

#: What a timm folder says of its making that an encoder decides itself.
_DECIDED = ("in_chans", "num_classes", "pretrained", "global_pool")

#: Parts of the names of weights that a checkpoint may lack: a pooler is then not read, and no patch is masked.
_DISPENSABLE = ("pooler", "mask_token")


def load_encoder(name: str, pretrained: bool = True) -> nn.Module:
    """The encoder of any vision checkpoint, with the interface that `extract_features` asks for.

    The encoder has `feature_layers`, the names of its layers from the input to the output; `layers(pixel_values)`, which maps RGB
    in [0, 1] (B, 3, H, W) to name -> map (B, C, h, w) or vector (B, D); and `config.image_size`, in pixels. Mean and standard
    deviation are applied inside. Which kind it is, is said by the checkpoint's config.json:

        timm/NAME, or an `architecture`     timm's, in a `DIMModel`, whose encoder reads any of them
        a `model_type` of this package      its own `Model`, from a pretraining checkpoint too
        any other `model_type`              transformers', in a `TransformersEncoder`

    A model of transformers is prepared for as the image processor beside it says; where there is none, its images have the
    configuration's size (else 224 pixels) and ImageNet's mean and standard deviation.

    Args:
        name: a folder, or that of a run with the folder `model` in it; a Hub id; or timm/NAME, with or without a tag.
        pretrained: False gives random weights, of the architecture alone.

    Returns:
        The encoder in evaluation mode, float32, on the CPU.

    Raises:
        UsageError: nothing of that name can be loaded, or it takes no images.

    >>> load_encoder("timm/resnet18_cifar", pretrained=False).feature_layers
    ('act1', 'layer1', 'layer2', 'layer3', 'conv', 'pool')
    """
    if name.startswith("timm/"):
        return _from_timm(name.removeprefix("timm/"), pretrained).float().eval()
    source = _folder_or_id(name)
    try:
        stated, _ = PreTrainedConfig.get_config_dict(source)
        if "architecture" in stated:
            encoder = _from_timm_folder(source, stated, pretrained)
        else:
            encoder = _from_transformers(source, pretrained)
    except UsageError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UsageError(
            f"No model can be loaded from '{name}' ({_reason(error)}): give the folder of a run or of a model, a Hub id, or "
            "timm/NAME."
        ) from error
    return encoder.float().eval()


def random_twin(model: nn.Module) -> nn.Module:
    """An encoder's architecture with fresh weights, from torch's random state: what training is measured against.

    Args:
        model: as `load_encoder` gives it.

    >>> model = load_encoder("timm/resnet18_cifar", pretrained=False)
    >>> twin = random_twin(model)
    >>> twin.feature_layers == model.feature_layers
    True
    """
    twin = model.random_twin() if isinstance(model, TransformersEncoder) else type(model)(model.config)
    return twin.eval()


def _folder_or_id(name: str) -> str:
    """Where config.json is: a run has it in a folder of its own; what is no folder is a Hub id."""
    folders = (Path(name).expanduser() / "model", Path(name).expanduser())
    return str(next((folder for folder in folders if folder.is_dir()), name))


def _reason(error: Exception) -> str:
    """How an error begins, on one line: what follows is advice to programmers."""
    return textwrap.shorten(str(error), 200, placeholder=" ...").rstrip(".:") or type(error).__name__


def _timm_encoder(
    trained: nn.Module, architecture: str, stated: dict[str, Any], kwargs: dict[str, Any] | None = None
) -> InfoMaxModel:
    """A timm model and the mean, deviation and size that are stated, as DIM's encoder, which reads any of them."""
    channels, *_, side = stated["input_size"]
    if channels != 3:
        raise UsageError(f"{architecture} takes images of {channels} channels: choose a model of RGB.")
    config = hf_infomax.DIMConfig(
        backbone=architecture,
        backbone_kwargs=kwargs,
        representation_size=None,
        image_size=side,
        image_mean=list(stated["mean"]),
        image_std=list(stated["std"]),
    )
    model = hf_infomax.DIMModel(config)
    model.encoders["RGB"].backbone.load_state_dict(trained.state_dict())
    return model


def _from_timm(name: str, pretrained: bool) -> InfoMaxModel:
    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models())
    try:
        trained = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"The weights of timm/{name} cannot be loaded ({_reason(error)}): set pretrained=false for random ones, "
            "or give a folder that holds them."
        ) from error
    return _timm_encoder(trained, name, trained.pretrained_cfg)


def _from_timm_folder(source: str, stated: dict[str, Any], pretrained: bool) -> InfoMaxModel:
    """Of a folder or a Hub id in timm's format, whose config.json is `stated`."""
    architecture = stated["architecture"]
    if not timm.is_model(architecture):
        raise unknown_name("timm model", architecture, timm.list_models())
    if "architectures" in stated:  # written by transformers, which names the weights otherwise
        trained = _of_transformers(source, AutoConfig.from_pretrained(source), pretrained)[0].timm_model
    else:
        prefix = "local-dir" if Path(source).is_dir() else "hf-hub"
        # With the classifier that it was saved with, for without one timm overlooks weights that are missing.
        trained = timm.create_model(f"{prefix}:{source}", pretrained=pretrained)
        trained.reset_classifier(0)
    kwargs = {key: value for key, value in (stated.get("model_args") or {}).items() if key not in _DECIDED}
    described = trained.pretrained_cfg | stated.get("pretrained_cfg", {})
    return _timm_encoder(trained, architecture, described, kwargs or None)


def _from_transformers(source: str, pretrained: bool) -> nn.Module:
    config = AutoConfig.from_pretrained(source)
    if config.model_type in READ_AS:
        config = READ_AS[config.model_type].from_pretrained(source)
    model, missing = _of_transformers(source, config, pretrained)
    if isinstance(model, InfoMaxModel):
        return model
    pooler = not any("pooler" in key for key in missing)  # a classifier's checkpoint has none
    return TransformersEncoder(model, describe(config, _processor(source), pooler))


def _of_transformers(source: str, config: PreTrainedConfig, pretrained: bool) -> tuple[nn.Module, set[str]]:
    """The model, and the names of the weights that the checkpoint lacks.

    Raises:
        UsageError: the features would depend on them.
    """
    if not pretrained:
        return AutoModel.from_config(config), set()
    model, report = AutoModel.from_pretrained(source, config=config, dtype=torch.float32, output_loading_info=True)
    missing = set(report["missing_keys"])
    needed = sorted(key for key in missing if not any(part in key for part in _DISPENSABLE))
    if needed:
        raise UsageError(
            f"'{source}' lacks {len(needed)} weights of {type(model).__name__}, {needed[0]} for one: they would be "
            "random; give a checkpoint of the whole encoder."
        )
    return model, missing


def _processor(source: str) -> Any | None:
    """The image processor beside a checkpoint, or None where there is none."""
    try:
        return AutoImageProcessor.from_pretrained(source)
    except (OSError, ValueError):  # ValueError: the folder has none, and its type of model no default one
        return None
