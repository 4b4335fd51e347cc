import importlib.util
import json
import re
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from transformers import AutoModel

_spec = importlib.util.spec_from_file_location("demo", Path(__file__).parents[2] / "examples" / "demo.py")
demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(demo)

TINY = (
    "train.max_steps=4",
    "train.batch_size=64",
    "train.log_every=1",
    "data.train_split=train[:300]",
    "data.eval_split=train[300:400]",
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "TRAIN_IMAGES", 200)
    monkeypatch.setattr(demo, "TEST_IMAGES", 300)
    monkeypatch.setattr(demo, "PROBE_IMAGES", 100)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_demo_writes_its_report_and_says_where_the_models_lie(small, tmp_path, capsys):
    assert demo.main([f"output_dir={tmp_path / 'demo'}", f"card={tmp_path / 'card'}", *TINY]) == 0
    out = tmp_path / "demo"
    figures = {"heatmap", "knn", "loss_maps", "neighbours", "training"}
    assert {path.stem for path in out.glob("*.png")} == figures
    assert {path.name for path in (tmp_path / "card").iterdir()} == {
        "results.json",
        *(f"{name}.png" for name in figures),
    }
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r"(src|href)=.https?:", page)
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {
        "DIM(L)",
        "CMC {L, ab}",
        "DIM(L), untrained",
        "CMC {L, ab}, untrained",
        "raw pixels",
    }
    assert {row["target"] for row in rows} == set(demo.TARGETS.values())
    printed = capsys.readouterr().out
    (folder,) = re.findall(r"AutoModel.from_pretrained\('(.*)'\)\n\n?$", printed)
    assert AutoModel.from_pretrained(folder).feature_layers == ("conv1", "conv2", "conv", "fc", "y")


def test_an_earlier_demo_is_left_alone(tmp_path):
    assert demo.fresh_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    assert demo.fresh_folder(tmp_path / "demo") == tmp_path / "demo-2"


def test_take():
    arguments = ["output_dir=a", "train.epochs=1"]
    assert demo.take(arguments, "output_dir") == "a"
    assert arguments == ["train.epochs=1"]
    assert demo.take(arguments, "card") is None
