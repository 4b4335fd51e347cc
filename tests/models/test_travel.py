"""The folder that travels: a saved model loads, and gives the same bits, where `hf_infomax` is not installed."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_infomax
from hf_infomax import METHODS

MODELS = Path(hf_infomax.models.__file__).parent
ALLOWED = {"torch", "timm", "transformers", "huggingface_hub", "safetensors"} | sys.stdlib_module_names

# Runs in another process. An editable install would still be found without PYTHONPATH: the hook refuses it.
ABROAD = """
import sys
from pathlib import Path


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_infomax":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Refuse())
try:
    import hf_infomax
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("hf_infomax is here")

import warnings

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForPreTraining

torch.set_num_threads(int(sys.argv[1]))
images = load_file("images.safetensors")["images"]
warnings.simplefilter("error", UserWarning)


@torch.no_grad()
def look(folder, name):
    results = {}
    encoder = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(encoder).__module__.startswith("transformers_modules."), type(encoder).__module__
    for layer, value in encoder.layers(images).items():
        results["layer." + layer] = value
    results["pooler_output"] = encoder(images).pooler_output
    results["features"] = encoder.features(images, "conv")
    if folder.name.endswith("pretraining"):
        model = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True).eval()
        torch.manual_seed(3)
        two = folder.name.startswith(("instdisc", "infomin"))
        output = model(torch.stack([images, images.flip(-1)], dim=1) if two else images)
        results["loss"] = output.loss
        if output.bound is not None:
            results["bound"] = output.bound
    if folder.name.endswith("classification"):
        results["logits"] = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)(images).logits
    AutoImageProcessor.from_pretrained(folder)
    save_file({key: value.contiguous() for key, value in results.items()}, name)
    return encoder


for folder in sorted(Path("saved").iterdir()):
    encoder = look(folder, f"{folder.name}.safetensors")
    if folder.name.endswith("model"):  # travels on from there
        again = Path("again") / f"{folder.name}-again"  # another name, lest the code of the first be taken from the cache
        encoder.save_pretrained(again)
        assert type(look(again, f"{again.name}.safetensors")) is not type(encoder)
"""

KINDS = ("model", "pretraining", "classification")
SIZES = {
    "dim": {"alpha": 1.0, "dot_units": 16, "concat_units": 12, "prior_units": [12]},
    "cmc": {},
    "instdisc": {
        "negatives": "batch",
        "head": "mlp",
        "critic": "bilinear",
    },  # two augmentations, compared behind a head
    "infomin": {"negatives": "batch", "encoder_momentum": None, "jigsaw_weight": 0.0, "head_units": 6},
    "predictive": {"decoder_channels": [8, 6]},
}


def abroad(home, images):
    save_file({"images": images}, home / "images.safetensors")
    (home / "abroad.py").write_text(ABROAD)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(home / "hf"), "HF_MODULES_CACHE": str(home / "modules"), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONSAFEPATH"] = "1"
    run = subprocess.run(
        [sys.executable, "abroad.py", str(torch.get_num_threads())],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "not initialized" not in run.stderr
    assert "UNEXPECTED" not in run.stderr
    return home


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """Saves every class here, loads all of them in one process elsewhere: (folder of the results, expected values)."""
    home = tmp_path_factory.mktemp("journey")
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32)
    expected = {}
    for method, (config_class, *model_classes) in METHODS.items():
        for kind, model_class in zip(KINDS, model_classes, strict=True):
            config = config_class(
                backbone_kwargs={"channels": [8, 12], "hidden_sizes": [24]}, representation_size=10, **SIZES[method]
            )
            model = model_class(config).eval()
            model.save_pretrained(home / "saved" / f"{method}-{kind}")
            with torch.no_grad():
                encoder = model if kind == "model" else model.model
                values = {f"layer.{name}": layer for name, layer in encoder.layers(images).items()}
                values["pooler_output"] = encoder(images).pooler_output
                values["features"] = encoder.features(images, "conv")
                if kind == "pretraining":
                    torch.manual_seed(3)
                    two = method in ("instdisc", "infomin")
                    output = model(torch.stack([images, images.flip(-1)], dim=1) if two else images)
                    values |= {"loss": output.loss} | ({} if output.bound is None else {"bound": output.bound})
                if kind == "classification":
                    values["logits"] = model(images).logits
            expected[f"{method}-{kind}"] = values
    return abroad(home, images), expected


@pytest.mark.parametrize("kind", [*KINDS, "model-again"])
@pytest.mark.parametrize("method", METHODS)
def test_a_saved_folder_gives_the_same_bits_abroad(journey, method, kind):
    home, expected = journey
    expected = expected[f"{method}-{kind.removesuffix('-again')}"]
    results = load_file(home / f"{method}-{kind}.safetensors")
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(results[name], value), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_saved_folder_holds_its_code_and_no_other(journey, method, kind):
    home, _ = journey
    saved = {path.name for path in (home / "saved" / f"{method}-{kind}").iterdir()}
    builds_on = {parent.__module__.rpartition("_")[2] for parent in METHODS[method][2].__mro__}  # InfoMin on InstDisc
    others = METHODS.keys() - builds_on
    assert method in builds_on
    assert {"config.json", "model.safetensors", "preprocessor_config.json", f"modeling_{method}.py"} <= saved
    assert not {f"modeling_{other}.py" for other in others} & saved
    assert {name for name in saved if name.endswith(".py")} <= {path.name for path in MODELS.glob("*.py")}


SOURCES = sorted(path for path in MODELS.iterdir() if path.name != "__pycache__")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_source_file_imports_siblings_and_the_stack_alone(path):
    assert path.suffix == ".py", "the folder is flat, and of source files only"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= ALLOWED
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.partition(".")[0] in ALLOWED
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, "only `from .sibling import Name` travels"
            assert node.module, "`from . import sibling` is left behind"
            assert "." not in node.module, "packages do not travel"
            assert (MODELS / f"{node.module}.py").exists()
            assert not any(alias.name == "*" for alias in node.names)
