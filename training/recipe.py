"""Recipes: a YAML file and `key=value` overrides -> one typed object, or one sentence that says what is wrong.

The schema below is the documentation of every key; its defaults hold where a recipe is silent.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

import hf_infomax
from hf_infomax.models.configuration_infomax import InfoMaxConfig
from hf_infomax.models.errors import unknown_name

RECIPES = Path(__file__).parent / "recipes"

Settings = TypeVar("Settings")


@dataclass
class DataRecipe:
    dataset: str = MISSING  # as in datasets.load_dataset: a Hub id, a local folder, or hf_infomax/colour_digits
    config: str | None = None  # the dataset's configuration, where it has several
    train_split: str = "train"
    eval_split: str | None = None  # the queries of the periodic kNN; a held-out part of the training split
    image_column: str | None = None  # None: the first image column
    label_column: str | None = None  # None: the first class label; used by the periodic kNN alone
    shorter_side: int | None = (
        None  # pixels at most, keeping the aspect, for views that crop; None: the model's squares
    )
    columns: dict[str, str] = field(default_factory=dict)  # further image columns: values, labels, normals or pixels
    sequence_column: str | None = None  # of video frames: which clip each is of; rows of a clip are in temporal order
    frames: dict[str, int] = field(default_factory=dict)  # further views: how many rows later, as next_frame: 2
    flow: dict[str, int] = field(default_factory=dict)  # further views: fields of optical flow, centred, as flow: 10
    replacement: bool | None = None  # draw every image of a batch from all; None: where the method has a memory bank
    streaming: bool = False
    shuffle_buffer: int = 10_000  # images, of a stream
    on_corrupt: str = "stop"  # or "skip", with a count
    workers: int = 0  # of the loader; decoded images need none


@dataclass
class TrainRecipe:
    batch_size: int = 128  # images of a step, over all processes; the last incomplete batch of an epoch is dropped
    epochs: int = 10
    max_steps: int | None = None  # ends the run early, schedule included; needed for a stream of unknown length
    optimizer: str = "adam"  # adam, adamw or sgd
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    momentum: float = 0.9  # of sgd
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # of adam and adamw
    schedule: str = "constant"  # constant, cosine (to zero), step, or plateau
    warmup_steps: int = 0
    step_epochs: list[int] = field(default_factory=list)  # schedule=step: multiply by step_factor at these epochs
    step_factor: float = 0.1  # of schedule=step and schedule=plateau
    # schedule=plateau: multiply by step_factor when the periodic kNN on the last layer, the representation, has not
    # exceeded its best for so many measurements, which are eval.every epochs apart; and at most how many times
    patience: int = 10
    max_drops: int = 2
    clip_norm: float | None = None  # of the gradient
    precision: str = "auto"  # auto (bf16 where the hardware has it), bf16, fp16 or fp32
    channels_last: bool = True
    gradient_checkpointing: bool = False
    gradient_accumulation: int = 1  # batches of one optimizer step; negatives stay those of each batch
    compile: bool = False
    threads: int | None = None  # of a CPU, for runs equal to the last bit; None: as many as other processes leave free
    seed: int = 0
    log_every: int = 20  # steps
    checkpoint_every: int = 1  # epochs; 0: only at the end, and when interrupted
    keep_checkpoints: int = 2
    trackers: list[str] = field(default_factory=list)  # of Accelerate, such as tensorboard


@dataclass
class EvalRecipe:
    every: int = 1  # epochs between two kNN measurements; 0: none
    bank: int = 5000  # training images that vote
    k: int = 20


@dataclass
class Recipe:
    method: str = MISSING  # dim, cmc, instdisc, infomin or predictive
    preset: str | None = (
        None  # a name of the method's configuration, such as ann+ of instdisc; model.* has the last word
    )
    output_dir: str = MISSING
    resume: bool = False  # continue from the newest checkpoint of output_dir
    model: dict[str, Any] = field(default_factory=dict)  # fields of the method's configuration
    data: DataRecipe = field(default_factory=DataRecipe)
    views: dict[str, Any] = field(default_factory=lambda: {"recipe": "dim"})  # a recipe of views and its strengths
    train: TrainRecipe = field(default_factory=TrainRecipe)
    eval: EvalRecipe = field(default_factory=EvalRecipe)


CHOICES = {
    "train.optimizer": ("adam", "adamw", "sgd"),
    "train.schedule": ("constant", "cosine", "step", "plateau"),
    "train.precision": ("auto", "bf16", "fp16", "fp32"),
    "data.on_corrupt": ("stop", "skip"),
}


def load_recipe(name: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by its path, or by its name among `training/recipes`, and apply `key=value` overrides.

    Raises:
        UsageError: no such recipe, an unknown key, or a value of another type.
    """
    path = Path(name) if Path(name).is_file() else RECIPES / f"{Path(name).stem}.yaml"
    recipe = read_settings(Recipe, read_file(path), overrides)
    for key, choices in CHOICES.items():
        section, _, leaf = key.partition(".")
        value = getattr(getattr(recipe, section), leaf)
        if value not in choices:
            raise unknown_name(key, value, choices)
    return recipe


def read_file(path: Path) -> Any:
    """A recipe's YAML over that of its `base`, a recipe beside it, where it names one: what it does not say is as there, but for
    the strengths of views where it names others, and the options of a backbone likewise.

    Raises:
        UsageError: there is no such recipe.
    """
    if not path.is_file():
        raise unknown_name("recipe", path.stem, sorted(file.stem for file in RECIPES.glob("*.yaml")))
    own = OmegaConf.load(path)
    base = own.pop("base", None)
    if base is None:
        return own
    below = read_file(path.parent / f"{base}.yaml")
    if "recipe" in own.get("views", {}):
        below.views = {}
    if "backbone" in own.get("model", {}):
        below.get("model", {}).pop("backbone_kwargs", None)
    return OmegaConf.merge(below, own)


def read_settings(schema: type[Settings], base: Any, overrides: list[str] | tuple[str, ...]) -> Settings:
    """A dataclass filled from `base` and then from `key=value` overrides.

    Raises:
        UsageError: an unknown key, a missing one, or a value of another type.
    """
    for override in overrides:
        if "=" not in override or override.startswith("-"):
            raise hf_infomax.UsageError(f"'{override}' is no override: write key=value, such as train.epochs=5.")
    try:
        return OmegaConf.to_object(OmegaConf.merge(schema, base, OmegaConf.from_dotlist(list(overrides))))
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise hf_infomax.UsageError(f"One of the overrides {list(overrides)} cannot be read: {reason}.") from error
    except ConfigKeyError as error:
        raise _unknown_key(schema, error.full_key) from error
    except MissingMandatoryValue as error:
        raise hf_infomax.UsageError(f"'{error.full_key}' is not set: give {error.full_key}=VALUE.") from error
    except OmegaConfBaseException as error:
        message = str(error).partition("\n")[0]
        raise hf_infomax.UsageError(f"'{error.full_key}' has a value that it cannot take: {message}.") from error


def _unknown_key(schema: type, full_key: str) -> hf_infomax.UsageError:
    section = full_key.rpartition(".")[0]
    owner = {f.name: f.type for f in fields(schema)}[section] if section else schema
    return unknown_name("key", full_key, [f"{section}.{f.name}" if section else f.name for f in fields(owner)])


def model_config(recipe: Recipe) -> InfoMaxConfig:
    """The method's configuration with the recipe's `model.*`.

    Raises:
        UsageError: an unknown method, a field that the method does not have, or a value of another type.
    """
    if recipe.method not in hf_infomax.METHODS:
        raise unknown_name("method", recipe.method, tuple(hf_infomax.METHODS))
    config_class = hf_infomax.METHODS[recipe.method][0]
    known = [
        name for parent in config_class.__mro__ if issubclass(parent, InfoMaxConfig) for name in parent.__annotations__
    ]
    for name in recipe.model:
        if name not in known:
            raise unknown_name(f"recipe key 'model.…' of {recipe.method}", name, known)
    try:
        return config_class.preset(recipe.preset, **recipe.model) if recipe.preset else config_class(**recipe.model)
    except StrictDataclassError as error:
        reason = " ".join(str(error).split())
        raise hf_infomax.UsageError(f"A value of 'model.*' has the wrong type: {reason}.") from error


def cpu_capabilities() -> dict[str, Any]:
    """What torch says of this processor: instruction sets, and its name; nothing where torch is too old to tell."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def precision(requested: str) -> str:
    """Accelerate's name of a precision; "auto" is bf16 where the hardware multiplies it natively, else fp32."""
    if requested == "auto":
        if torch.cuda.is_available():
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
        cpu = cpu_capabilities()
        return "bf16" if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else "no"
    if requested == "fp16" and not torch.cuda.is_available():
        raise hf_infomax.UsageError("train.precision=fp16 needs a GPU: use auto, bf16 or fp32 on this machine.")
    return "no" if requested == "fp32" else requested
