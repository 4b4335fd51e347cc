import importlib.util
import json
from pathlib import Path

import pytest

from pretrain import train
from recipe import load_recipe

# `import evaluate` could give the library of that name, which another module may have imported first.
_spec = importlib.util.spec_from_file_location(
    "evaluate_script", Path(__file__).parents[2] / "training" / "evaluate.py"
)
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

SMALL = ["train_images=100", "eval_images=60"]


@pytest.fixture
def checkpoint(tiny):
    return train(load_recipe("cmc_colour_digits_cpu", tiny("train.max_steps=2", "eval.every=0")))


def test_a_run_is_asked_at_every_layer_beside_its_baselines(checkpoint, capsys):
    assert script.main([str(checkpoint), *SMALL]) == 0
    rows = json.loads((checkpoint / "results.json").read_text())["rows"]
    asked = {(row["model"], row["layer"]) for row in rows if row["split"] == "test"}
    layers = ("conv1", "conv2", "conv", "fc", "y")
    assert asked == {(model, layer) for model in ("trained", "random init") for layer in layers} | {
        ("raw pixels", "pixels")
    }
    targets = {(row["target"], row["probe"], row["metric"]) for row in rows if row["split"] == "test"}
    factors = {(name, "linear", "r2") for name in ("x", "y", "size", "foreground", "background")}
    assert targets == {("label", "knn20", "accuracy"), ("label", "linear", "accuracy")} | factors
    assert "random init" in capsys.readouterr().out


def test_the_model_folder_and_the_run_folder_are_the_same_checkpoint(checkpoint):
    asked = ["targets=[label]", "probes=[knn]", "baselines=false", *SMALL]
    values = []
    for name in (checkpoint, checkpoint / "model"):
        output = checkpoint / f"{name.name}.json"
        assert script.main([str(name), *asked, f"output={output}"]) == 0
        values.append([row["value"] for row in json.loads(output.read_text())["rows"]])
    assert values[0] == values[1]
    assert len(values[0]) == 5


def test_a_card_names_no_place_of_this_machine(checkpoint, tmp_path):
    card = tmp_path / "card"
    assert script.main([str(checkpoint), "targets=[label]", "probes=[knn]", f"card={card}", *SMALL]) == 0
    assert {path.name for path in card.iterdir()} == {"results.json", "table.md"}
    published = (card / "results.json").read_text()
    assert str(tmp_path) not in published
    assert json.loads(published)["run"]["images_per_second"] > 0
    assert "| trained | conv |" in (card / "table.md").read_text()


def test_a_timm_model_without_weights(tmp_path, capsys):
    settings = ["pretrained=false", "baselines=false", "data.dataset=hf_infomax/colour_digits", "targets=[label, x+y]"]
    output = tmp_path / "results.json"
    assert script.main(["timm/resnet18_cifar", *settings, "layers=[pool]", f"output={output}", *SMALL]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["layer"], row["target"], row["metric"]) for row in rows] == [
        ("pool", "label", "accuracy"),
        ("pool", "label", "accuracy"),
        ("pool", "x+y", "r2"),
    ]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["layers=[conv7]"], "Unknown layer 'conv7'"),
        (["probes=[svm]"], "Unknown probe 'svm'"),
        (["targets=[weight]"], "weight"),
        (["data.eval_split=dev"], "dev"),
        (["layer=conv"], "'layer'"),
    ],
)
def test_a_mistake_is_one_sentence(settings, sentence, checkpoint, capsys):
    assert script.main([str(checkpoint), *SMALL, *settings]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]


def test_an_unknown_checkpoint_is_one_sentence(tmp_path, capsys):
    assert script.main([str(tmp_path / "nothing"), "data.dataset=hf_infomax/colour_digits"]) == 2
    assert "nothing" in capsys.readouterr().err
    assert script.main(["timm/resnet81", "data.dataset=hf_infomax/colour_digits"]) == 2
    assert "Unknown timm model 'resnet81': did you mean" in capsys.readouterr().err
