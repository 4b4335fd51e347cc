import re
import tomllib
from pathlib import Path

import pytest

import hf_infomax
from hf_infomax.data.recipes import RECIPES as RECIPES_OF_VIEWS
from recipe import RECIPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    hf_infomax.CMCForPreTraining(hf_infomax.CMCConfig()).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_run(example, folder):
    names = {}
    exec(example.replace("outputs/demo/cmc/model", folder), names)
    assert names.get("hf_infomax", hf_infomax) is hf_infomax


def test_what_it_points_to_is_there():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_recipe_is_named():
    methods = "dim|cmc|predictive|ir|simclr|ball|ann|la|moco|pirl|infomin"
    named = set(re.findall(rf"`((?:{methods})_\w+)`", README)) - set(RECIPES_OF_VIEWS)
    recipes = {path.stem for path in RECIPES.glob("*.yaml")}
    named -= {path.stem for path in (RECIPES.parent / "comparisons").glob("*.yaml")} - recipes
    assert named <= recipes, named - recipes
    assert {name for name in recipes if name.removesuffix("_cpu") not in named and name not in named} == set()


def test_every_recipe_of_views_is_named():
    assert set(RECIPES_OF_VIEWS) <= set(re.findall(r"`(\w+)`", README))


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == hf_infomax.__version__
