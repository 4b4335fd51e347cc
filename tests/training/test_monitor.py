"""What a run is asked while it trains: which images answer, and what is told where labels are missing or a representation dies."""

import datasets
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from checkpoint import Progress
from hf_infomax import UsageError
from hf_infomax.data.decoding import Decoder
from hf_infomax.evaluation import HEALTH, Health
from metrics import Metrics
from monitor import Monitor
from pretrain import train
from recipe import load_recipe
from sources import training_loader

pytestmark = pytest.mark.usefixtures("folder", "no_sleep")
STREAM = ("data.streaming=true", "train.max_steps=100", "data.shuffle_buffer=10")


def grey(level, size=(8, 8)):
    return Image.new("RGB", size, (level, level, level))


def recipe(dataset, *overrides):
    settings = [f"data.dataset={dataset}", "train.batch_size=4", "output_dir=unused"]
    return load_recipe("dim_colour_digits_cpu", [*settings, *overrides])


def test_the_monitor_reads_the_images_that_are_trained_on(files, folder, monkeypatch):
    dataset = files([grey(level) for level in range(40)])
    settings = recipe(dataset, "data.train_split=train[:30]", "data.eval_split=train[30:]", "eval.bank=12")
    training_loader(settings, 8, Accelerator(cpu=True))
    decoded = []
    decode = Decoder.__call__
    monkeypatch.setattr(Decoder, "__call__", lambda self, value: decoded.append(value) or decode(self, value))
    monitor = Monitor.build(settings, 8)
    assert len(decoded) == 10  # those held out
    assert len([path for path in folder.iterdir() if path.name != ".locks"]) == 2
    bank = monitor.bank[monitor.bank_rows]
    assert len(bank) == len(bank.amax(dim=(1, 2, 3)).unique()) == 12
    assert (bank.amax(dim=(1, 2, 3)) % 2).tolist() == monitor.bank_labels.tolist()
    assert (monitor.queries.amax(dim=(1, 2, 3)) % 2).tolist() == monitor.query_labels.tolist()


@pytest.mark.parametrize("overrides", [("data.shorter_side=6",), STREAM])
def test_the_monitor_always_sees_squares(overrides, files):
    dataset = files([grey(level, (8 + level, 9)) for level in range(20)])
    splits = ["data.train_split=train", "data.eval_split=train", "eval.bank=12"]
    monitor = Monitor.build(recipe(dataset, *splits, *overrides), 8)
    assert monitor.bank[monitor.bank_rows].shape == (12, 3, 8, 8)
    assert (monitor.bank[monitor.bank_rows].amax(dim=(1, 2, 3)) % 2).tolist() == monitor.bank_labels.tolist()


@pytest.fixture
def unlabelled(tmp_path):
    """40 noisy images without any other column."""
    torch.manual_seed(0)
    images = [Image.effect_noise((32, 32), 60).convert("RGB") for _ in range(40)]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": images}, features=features).to_parquet(tmp_path / "bare" / "train.parquet")
    return str(tmp_path / "bare")


@pytest.mark.parametrize("overrides", [(), STREAM])
def test_without_labels_the_health_remains(overrides, unlabelled):
    settings = recipe(unlabelled, "data.train_split=train", "data.eval_split=train", *overrides)
    monitor = Monitor.build(settings, 32)
    assert monitor.knn(None) == {}
    assert monitor.queries.shape == (40, 3, 32, 32)


def test_a_run_without_labels_tells_its_health(unlabelled, tiny):
    splits = ("data.train_split=train[:32]", "data.eval_split=train[32:]")
    out = train(load_recipe("dim_colour_digits_cpu", tiny(f"data.dataset={unlabelled}", *splits, "train.epochs=1")))
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert "health" in lines[-1]
    assert not any("knn" in line for line in lines)
    assert not (out / "knn.png").exists()


def test_the_plateau_needs_labels(unlabelled):
    with pytest.raises(UsageError, match=r"'train' has no column of classes: set data\.label_column"):
        Monitor.build(
            recipe(unlabelled, "data.train_split=train", "data.eval_split=train", "train.schedule=plateau"), 32
        )


def test_a_collapse_is_said_and_stays_on_the_bar_until_it_is_over(tmp_path):
    metrics, written = Metrics(tmp_path, Accelerator(cpu=True), Progress(), total=10, steps_per_epoch=5), []
    metrics.bar.write = written.append
    sound = Health("y", units=64, rankme=30.0, dead_units=0.1, uniformity=-3.0, alignment=0.3)
    metrics.log_health(sound, Progress(step=5))
    assert (len(written), metrics.alarm) == (1, "")
    metrics.log_health(Health("y", 64, rankme=1.1, dead_units=0.75, uniformity=-0.01, alignment=0.0), Progress(step=10))
    assert [line.startswith("warning: ") for line in written[1:]] == [False, True, True]
    assert "collapsed" in metrics.alarm
    assert "75% of the units of layer y are dead" in metrics.alarm
    metrics.log_health(sound, Progress(step=10))
    assert metrics.alarm == ""
    metrics.bar.close()
    records = [record["health"] for record in metrics.history]
    assert [len(record["warnings"]) for record in records] == [0, 2, 0]
    assert records[1]["rankme"] == 1.1
    assert all(set(HEALTH) < set(record) for record in records)
