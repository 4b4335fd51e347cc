import pytest
import torch
from omegaconf import OmegaConf

import hf_infomax
from hf_infomax.data import recipes as view_recipes
from recipe import RECIPES, load_recipe, model_config, precision
from sources import view_options

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
NAMED = {
    name: "dataset" in OmegaConf.load(RECIPES / f"{name}.yaml").data for name in NAMES
}  # others are the user's own


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_describes_a_model(name):
    recipe = load_recipe(name, [] if NAMED[name] else ["data.dataset=a/folder"])
    config = model_config(recipe)
    assert type(config) is hf_infomax.METHODS[recipe.method][0]
    assert recipe.output_dir.startswith("outputs/")
    assert recipe.data.train_split != recipe.data.eval_split
    with torch.device("meta"):
        hf_infomax.METHODS[recipe.method][2](config)
    given = {*recipe.data.columns, *recipe.data.frames, *recipe.data.flow, *recipe.views.get("again", [])}
    assert given == set(config.columns or {})  # what the views need is what the batch has
    view_recipes.load(image_size=config.image_size, **view_options(recipe))


def test_a_recipe_without_a_dataset_says_so():
    assert not NAMED["cmc_nyu_4views"]
    with pytest.raises(hf_infomax.UsageError, match=r"^'data\.dataset' is not set: give data\.dataset=VALUE\.$"):
        load_recipe("cmc_nyu_4views")


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("dim_local_cifar10", (0.0, 1.0, 0.1)),
        ("dim_global_cifar10", (1.0, 0.0, 1.0)),
        ("dim_local_global_cifar10", (0.5, 0.1, 0.1)),
    ],
)
def test_paper_settings(name, weights):
    recipe = load_recipe(name)
    config = model_config(recipe)
    assert (config.alpha, config.beta, config.gamma) == weights
    assert (recipe.train.batch_size, recipe.train.learning_rate, recipe.train.epochs) == (64, 1e-4, 1000)
    assert (config.backbone, config.dot_units, config.concat_units, config.bound) == ("dim_dcgan", 2048, 512, "infonce")


def test_overrides_win_and_keep_their_types():
    recipe = load_recipe(
        "dim_local_cifar10",
        ["train.learning_rate=3e-4", "data.train_split=train[:1000]", "model.bound=jsd", "resume=true"],
    )
    assert recipe.train.learning_rate == 3e-4
    assert recipe.data.train_split == "train[:1000]"
    assert recipe.model == {"alpha": 0.0, "beta": 1.0, "gamma": 0.1, "bound": "jsd"}
    assert recipe.resume is True


def test_a_recipe_is_found_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: cmc\noutput_dir: x\ndata: {dataset: hf_infomax/colour_digits}\n")
    assert load_recipe(str(path)).method == "cmc"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epoch=3", "'train.epoch'.*train.epochs"),
        ("trian.epochs=3", "'trian'"),
        ("train.epochs=many", "'train.epochs'"),
        ("train.optimizer=lion", "'lion'.*adam, adamw, sgd"),
        ("train.epochs", "key=value"),
        ("model.columns={depth:{mean: 1}}", "cannot be read"),
        ("--epochs=3", "key=value"),
    ],
)
def test_a_wrong_override_is_one_sentence(override, sentence):
    with pytest.raises(hf_infomax.UsageError, match=sentence) as caught:
        load_recipe("dim_local_cifar10", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("method=simclip", "'simclip'.*dim, cmc"),
        ("model.gama=0.1", "'gama'.*did you mean gamma"),
        ("model.dot_units=many", "dot_units"),
    ],
)
def test_a_wrong_model_is_one_sentence(override, sentence):
    with pytest.raises(hf_infomax.UsageError, match=sentence) as caught:
        model_config(load_recipe("dim_local_cifar10", [override]))
    assert "\n" not in str(caught.value)


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(hf_infomax.UsageError, match="dim_local_cifar10"):
        load_recipe("dim_local_cifar")


def test_missing_dataset_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: cmc\noutput_dir: x\n")
    with pytest.raises(hf_infomax.UsageError, match=r"data\.dataset"):
        load_recipe(str(path))


def test_precision(monkeypatch):
    assert precision("fp32") == "no"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(hf_infomax.UsageError, match="GPU"):
        precision("fp16")
    for capabilities, expected in (
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx2": True}, "no"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert precision("auto") == expected
