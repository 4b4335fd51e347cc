import pytest
import torch

import hf_infomax
from hf_infomax.data import recipes as view_recipes
from recipe import RECIPES, load_recipe, model_config, precision, read_file
from sources import view_options

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
NAMED = {name: "dataset" in read_file(RECIPES / f"{name}.yaml").data for name in NAMES}  # others are the user's own


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


@pytest.mark.parametrize("name", ["ann_plus_cifar10", "ann_plus_imagenet", "la_imagenet", "cmc_ann_plus_imagenet"])
def test_settings_of_instance_discrimination(name):
    recipe = load_recipe(name)
    config, train = model_config(recipe), recipe.train
    assert (train.optimizer, train.learning_rate, train.momentum, train.weight_decay) == ("sgd", 0.03, 0.9, 1e-4)
    assert (train.schedule, train.patience, train.max_drops, train.step_factor) == ("plateau", 10, 2, 0.1)
    assert train.batch_size == (128 if recipe.method == "cmc" else 256)
    assert (config.backbone, config.representation_size, config.temperature, config.bank_momentum) == (
        "resnet18",
        128,
        0.07,
        0.5,
    )
    assert (config.num_negatives, config.ball_size, config.num_clusterings) == (4096, 4096, 10)
    assert config.num_clusters == (30_000 if "imagenet" in name else 300)


def test_strengths_and_options_belong_to_the_views_and_the_backbone_of_the_base():
    base, recipe = load_recipe("moco_v2_cifar10_cpu"), load_recipe("pirl_cifar10_cpu")
    assert base.views == {"recipe": "moco_v2", "blur": 0.0}
    assert recipe.views == {"recipe": "pirl"}  # which has no blur
    assert "hidden_sizes" in base.model["backbone_kwargs"]
    assert load_recipe("moco_v2_resnet_cifar10_cpu").model["backbone_kwargs"] == {"channels": [16, 32, 64, 128]}
    assert load_recipe("simclr_cifar10_cpu").views == {"recipe": "instdisc", "crops": 2}  # it names none of its own


def test_a_recipe_takes_from_its_base_what_it_does_not_say():
    base, recipe = load_recipe("ir_cifar10_cpu"), load_recipe("ball_plus_cifar10_cpu")
    assert recipe.model == base.model | {"anneal_epochs": 8}
    assert (recipe.preset, recipe.output_dir) == ("ball+", "outputs/ball_plus_cifar10_cpu")
    assert (recipe.train, recipe.views) == (base.train, base.views)


def test_a_preset_is_a_name_and_fields_have_the_last_word():
    config = model_config(
        load_recipe("ir_cifar10_cpu", ["preset=ann+", "model.anneal=cosine", "model.anneal_epochs=5"])
    )
    assert (config.negatives, config.anneal, config.anneal_epochs) == ("annulus", "cosine", 5)
    with pytest.raises(
        hf_infomax.UsageError, match=r"^Unknown preset 'anulus': choose one of ir, simclr, la, ball, ann,"
    ):
        model_config(load_recipe("ir_cifar10_cpu", ["preset=anulus"]))


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
