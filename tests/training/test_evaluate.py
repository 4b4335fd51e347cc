import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTModel

from hf_infomax.evaluation import LABEL_FREE
from pretrain import train
from recipe import load_recipe

# `import evaluate` could give the library of that name, which another module may have imported first.
_spec = importlib.util.spec_from_file_location(
    "evaluate_script", Path(__file__).parents[2] / "training" / "evaluate.py"
)
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

SMALL = ["train_images=100", "eval_images=60", "figures=false", "cache=false"]


DIGITS = ["data.dataset=hf_infomax/colour_digits"]


@pytest.fixture(scope="module")
def trained(tiny_of_module):
    return train(load_recipe("cmc_colour_digits_cpu", tiny_of_module("train.max_steps=2", "eval.every=0")))


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A copy of the run, for an evaluation writes into its folder."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_run_is_asked_at_every_layer_beside_its_baselines(checkpoint, capsys):
    assert script.main([str(checkpoint), *SMALL, "layers=[conv,y]"]) == 0
    rows = json.loads((checkpoint / "results.json").read_text())["rows"]
    asked = {(row["model"], row["layer"]) for row in rows if row["split"] == "test"}
    layers = ("conv", "y")
    assert asked == {(model, layer) for model in ("trained", "random init") for layer in layers} | {
        ("raw pixels", "pixels")
    }
    targets = {
        (row["target"], row["probe"], row["metric"])
        for row in rows
        if row["split"] == "test" and row["probe"] != LABEL_FREE
    }
    factors = {(name, "linear", "r2") for name in ("x", "y", "size", "foreground", "background")}
    assert targets == {("label", "knn20", "accuracy"), ("label", "linear", "accuracy")} | factors
    assert "random init" in capsys.readouterr().out


def test_the_model_folder_and_the_run_folder_are_the_same_checkpoint(checkpoint):
    asked = ["targets=[label]", "probes=[knn]", "measures=[]", "baselines=false", *SMALL]
    values = []
    for name in (checkpoint, checkpoint / "model"):
        output = checkpoint / f"{name.name}.json"
        assert script.main([str(name), *asked, f"output={output}"]) == 0
        rows = json.loads(output.read_text())["rows"]
        values.append([row["value"] for row in rows if row["probe"] == "knn20"])
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
    settings = ["pretrained=false", "baselines=false", *DIGITS, "targets=[label, x+y]", "measures=[]"]
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
        (["probes=[tree]"], "Unknown probe 'tree'"),
        (["measures=[mi]"], "Unknown measure 'mi'"),
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


QUICK = [
    "options.mine={steps: 3, runs: 2, batch_size: 16, hidden: 4}",
    "options.ndm={steps: 3, runs: 2, batch_size: 16, hidden: 4}",
    "options.ms_ssim={epochs: 1, width: 2}",
    "options.mlp={epochs: 2, average: 1}",
    "options.few_labels={counts: [1, 2], seeds: [0, 1]}",
    "options.finetune={epochs: 1, average: 1}",
]


def test_everything_that_can_be_asked_is_in_the_report(checkpoint, capsys):
    asked = "probes=[knn,linear,svm,mlp,sgd]", "measures=[label_free,few_labels,infonce,mine,ndm,ms_ssim,finetune]"
    settings = ["targets=[label]", "layers=[y]", "options.sgd.epochs=1", *asked, *QUICK]
    small = [setting for setting in SMALL if not setting.startswith("figures")]
    assert script.main([str(checkpoint), "probe_seeds=2", "baselines=false", *settings, *small]) == 0
    rows = [row for row in json.loads((checkpoint / "results.json").read_text())["rows"] if row["model"] == "trained"]
    found = {(row["probe"], row["target"], row["metric"]) for row in rows}
    assert found == {
        *((probe, "label", "accuracy") for probe in ("knn20", "linear", "svm", "mlp", "sgd", "fine-tuned")),
        ("linear, 1 label per class", "label", "accuracy"),
        ("linear, 2 labels per class", "label", "accuracy"),
        *((LABEL_FREE, "images", metric) for metric in ("rankme", "alignment", "uniformity", "dead_units")),
        ("infonce", "the other view", "nats"),
        ("mine", "input", "nats"),
        ("ndm", "units", "nats of dependence"),
        ("ndm", "units behind a sigmoid", "nats of dependence"),
        ("decoder", "input", "ms_ssim"),
        ("decoder", "input", "mse"),
        ("bound in training", "views", "nats"),
    }
    assert {row["probe"]: row["seeds"] for row in rows if row["probe"] in ("svm", "knn20")} == {
        "knn20": [0],
        "svm": [0, 1],
    }
    names = {path.stem for path in (checkpoint / "figures").iterdir()}
    assert names == {"layers", "label_curves", "projection", "neighbours", "training_curves"}
    page = (checkpoint / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(names)
    assert "report in" in capsys.readouterr().out


@pytest.mark.parametrize("size", [32, 16])  # the smaller has no room for the paper's blocks
def test_loss_maps_are_drawn_of_deep_infomax(size, tiny):
    settings = "train.max_steps=2", "eval.every=0", f"model.image_size={size}"
    run = train(load_recipe("dim_colour_digits_cpu", tiny(*settings)))
    small = ["train_images=40", "eval_images=30", "cache=false", "targets=[label]", "layers=[y]", "baselines=false"]
    assert script.main([str(run), *small, "probes=[knn]", f"ablation={run.parent}"]) == 0
    assert {"loss_maps.png", "ablation.png"} < {path.name for path in (run / "figures").iterdir()}


def test_several_checkpoints_of_any_kind_stand_in_one_table(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTModel(ViTConfig(image_size=16, patch_size=8, **tiny)).save_pretrained(tmp_path / "vit")
    settings = ["targets=[label]", "probes=[knn]", *SMALL]
    assert script.main([str(checkpoint), "vit", *settings]) == 0
    rows = json.loads(Path("outputs/evaluation/results.json").read_text())["rows"]
    layers = {}
    for row in rows:
        if row["probe"] == "knn20":
            layers.setdefault(row["model"], []).append(row["layer"])
    assert layers == {
        "run": ["conv1", "conv2", "conv", "fc", "y"],
        "random init": ["conv1", "conv2", "conv", "fc", "y"],
        "raw pixels": ["pixels"],
        "vit": ["stage0", "conv", "pool"],
    }


def test_two_runs_of_one_name_keep_their_places():
    settings = script.Evaluation()
    assert script.named(["a/model", "b/model"], settings) == {"a/model": "a/model", "b/model": "b/model"}
    assert script.named(["a/x", "b/y"], settings) == {"x": "a/x", "y": "b/y"}
    assert script.named(["a/x"], settings) == {"trained": "a/x"}


def test_what_has_collapsed_is_said_in_the_report():
    common = {"layer": "y", "probe": LABEL_FREE, "target": "images", "dataset": "set", "split": "test"}
    rows = [
        script.Row(model=model, metric=metric, value=value, **common)
        for model, rank in (("good", 30.0), ("bad", 1.2))
        for metric, value in (("rankme", rank), ("dead_units", 0.0))
    ]
    assert script.warnings_of(rows) == ["bad: layer y has collapsed: its RankMe is 1.20, images hardly differ in it."]


def test_a_command_without_a_checkpoint_says_so(capsys):
    assert script.main(["data.dataset=hf_infomax/colour_digits"]) == 2
    assert "no checkpoint to evaluate" in capsys.readouterr().err
