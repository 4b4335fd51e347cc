import json

import pytest
import torch
from omegaconf import OmegaConf

import finetune_segmentation as script
from hf_infomax import CMCConfig, CMCForPreTraining, data
from hf_infomax.downstream import UNet
from recipe import load_recipe

SMALL = ("epochs=2", "batch_size=8", "precision=fp32", "threads=1", "data.train_split=train[:24]")


@pytest.fixture
def run(tmp_path):
    """The folder of a run of L, ab, depth and normals on the scenes, at 32x32."""
    recipe = load_recipe(
        "cmc_cifar10_cpu",
        ["data.dataset=hf_infomax/scenes", "data.columns={depth: values, normals: normals}", f"output_dir={tmp_path}"],
    )
    config = CMCConfig(
        backbone_kwargs={"channels": [8, 12, 16], "hidden_sizes": [24]},
        views=["L", "ab", "depth", "normals"],
        columns={"depth": {"mean": 4000, "std": 2000}, "normals": {"channels": 3}},
    )
    CMCForPreTraining(config).save_pretrained(tmp_path / "model")
    OmegaConf.save(OmegaConf.structured(recipe), tmp_path / "recipe.yaml")
    return tmp_path


def settings_of(run, *overrides):
    return script.load_settings(str(run), [*SMALL, *overrides])


@pytest.mark.parametrize("view", ["L", "depth", "normals"])
def test_a_segmenter_is_trained_measured_and_saved(run, view, capsys):
    assert script.main([str(run), *SMALL, f"view={view}"]) == 0
    rows = json.loads((run / "results.json").read_text())["rows"]
    assert [(row["metric"], row["layer"], row["probe"], row["target"], row["split"]) for row in rows] == [
        (metric, view, "unet", "semantic", "test") for metric in ("mean_iou", "pixel_accuracy")
    ]
    assert all(0 < row["value"] < 1 for row in rows)
    assert (run / "segmentation" / f"trained-{view}.png").stat().st_size > 0
    assert "mean_iou" in capsys.readouterr().out
    assert UNet.from_pretrained(run / "segmentation" / f"trained-{view}").num_classes == 6


def test_what_was_saved_predicts_what_was_measured(run):
    rows = script.segment(settings_of(run))
    unet = UNet.from_pretrained(run / "segmentation" / "trained-L")
    scenes = data.load_dataset("hf_infomax/scenes", "test")
    pixels = data.decode_images(scenes, "image", 32).pixels
    labels = data.decode_images(scenes, "semantic", 32, kind="labels").pixels.squeeze(1)
    with torch.no_grad():
        predicted = unet(pixels / 255).argmax(1)
    assert (predicted == labels).float().mean().item() == pytest.approx(rows[1].value, abs=1e-3)


def test_cached_maps_change_nothing(run):
    cached, computed = (script.segment(settings_of(run, f"cache_features={on}", "output=null")) for on in (True, False))
    assert [row.value for row in cached] == pytest.approx([row.value for row in computed], abs=0.01)


def test_the_baselines_are_named_and_leave_no_file_where_none_is_asked_for(run):
    before = sorted(run.rglob("*"))
    names = [
        script.segment(settings_of(run, "output=null", "epochs=1", *more))[0].model
        for more in (["init=random"], ["init=random", "frozen=false", "flip=true"], ["name=CMC", "seed=3"])
    ]
    assert names == ["random init", "supervised", "CMC"]
    assert sorted(run.rglob("*")) == before


def test_training_lowers_the_loss_to_better_than_the_commonest_class(run):
    rows = script.segment(settings_of(run, "view=normals", "epochs=30", "frozen=false", "output=null"))
    labels = data.decode_images(data.load_dataset("hf_infomax/scenes", "test"), "semantic", 32, kind="labels").pixels
    commonest = torch.bincount(labels.flatten().long()).max().item() / labels.numel()
    assert rows[1].value > commonest + 0.1


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["view=l"], "Unknown view 'l'"),
        (["data.label_column=classes"], "no column 'classes'"),
        (["data.label_column=focal"], "'focal' holds no label maps"),
        (["num_classes=4"], "there are 4 classes: set num_classes"),
        (["init=imagenet"], "Unknown init 'imagenet'"),
        (["flip=true", "cache_features=true"], "cache_features=true needs"),
        (["view=depth", "data.columns=null"], "data.columns"),
        (["epoch=3"], "'epoch'"),
    ],
)
def test_a_mistake_is_one_sentence(run, overrides, sentence, capsys):
    assert script.main([str(run), *SMALL, *overrides]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in errors if line.startswith("error: ")]) == 1
    assert sentence in errors[-1]


def test_a_view_needs_to_be_told_what_it_holds(run):
    recipe = OmegaConf.load(run / "recipe.yaml")
    recipe.data.columns = {}
    OmegaConf.save(recipe, run / "recipe.yaml")
    with pytest.raises(script.hf_infomax.UsageError, match=r"data.columns=\{depth: values\}"):
        script.segment(settings_of(run, "view=depth"))
