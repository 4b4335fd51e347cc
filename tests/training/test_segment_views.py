import json

import pytest
import yaml

import segment_views
from recipe import load_recipe, model_config
from tests.training.conftest import TINY

STUDIES = sorted(path.stem for path in segment_views.STUDIES.glob("*.yaml"))


@pytest.mark.parametrize("name", STUDIES)
def test_every_run_of_a_study_describes_a_model(name):
    study = segment_views.load_study(name)
    for own in study.runs.values():
        recipe = load_recipe(study.recipe, ["data.dataset=a/folder", *study.overrides, *own])
        config = model_config(recipe)
        assert study.core in config.views
        assert set(config.columns or {}) & set(config.views) <= {
            *recipe.data.columns,
            *recipe.data.frames,
            *recipe.data.flow,
        }
    assert set(study.others) <= set(config.views)


def test_a_study_is_run_once_and_published(tmp_path, monkeypatch, capsys):
    study = {
        "recipe": "cmc_scenes_cpu",
        "overrides": [*TINY[:1], *TINY[2:4], "train.batch_size=8", "train.epochs=1", "model.image_size=32"],
        "seeds": [0, 1],
        "runs": {
            "one": ["model.views=[L]", "model.core_view=null", "model.columns=null", "data.columns={}"],
            "two": ["model.views=[L,depth]"],
        },
        "core": "L",
        "others": ["depth"],
        "segmentation": ["epochs=1", "batch_size=8", "precision=fp32", "threads=1"],
    }
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "small.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.setattr(segment_views, "STUDIES", tmp_path / "studies")
    monkeypatch.setattr(segment_views, "CARDS", tmp_path / "cards")
    monkeypatch.chdir(tmp_path)
    assert segment_views.main(["small"]) == 0
    card = tmp_path / "cards" / "segment_small"
    rows = json.loads((card / "results.json").read_text())["rows"]
    models = {"one", "two", "random", "random, norms settled", "supervised"}
    assert {(row["model"], row["layer"]) for row in rows} == {(model, "L") for model in models} | {
        (model, "depth") for model in models - {"one", "random"}
    }
    assert all(row["seeds"] == ([0, 1] if row["layer"] == "L" else [0]) for row in rows)
    assert (card / "comparison.png").stat().st_size > 10_000
    assert "mean_iou" in (card / "table.md").read_text()
    monkeypatch.setattr(segment_views, "segment", lambda *_: pytest.fail("measured twice"))
    capsys.readouterr()
    assert segment_views.main(["small"]) == 0


def test_an_unknown_study_lists_the_known_ones(capsys):
    assert segment_views.main(["scene"]) == 2
    assert "scenes_cpu" in capsys.readouterr().err
