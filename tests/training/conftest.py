"""A recipe that runs in a second: a tiny encoder on the tests' digits; and datasets of a test's own."""

from functools import partial

import datasets
import pytest

TINY = (
    "model.backbone_kwargs={channels: [8, 12, 16], hidden_sizes: [24]}",
    "train.batch_size=32",
    "train.precision=fp32",
    "train.threads=1",
    "train.log_every=1",
    "eval.bank=100",
)


def tiny_run(folder, *more: str, out: str = "run") -> list[str]:
    splits = ("data.train_split=train[:100]", "data.eval_split=train[100:140]", "train.epochs=2")
    return [*TINY, *splits, f"output_dir={folder / out}", *more]


@pytest.fixture
def tiny(tmp_path):
    """Overrides of a tiny run: three steps an epoch, two epochs, into a folder of its own."""
    return partial(tiny_run, tmp_path)


@pytest.fixture(scope="module")
def tiny_of_module(tmp_path_factory):
    """The same for a run that all tests of a file read."""
    return partial(tiny_run, tmp_path_factory.mktemp("module"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_sleep(monkeypatch):
    """`datasets` sleeps for seconds after each pass over parquet files, lest a process that ends then may crash."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


@pytest.fixture
def files(tmp_path):
    """A dataset of as many parquet files as asked for; the level of grey is the image's name."""

    def write(images, shards=1, **columns):
        rows = {"image": images, "label": [index % 2 for index in range(len(images))], **columns}
        features = {name: datasets.Image() for name in rows} | {"label": datasets.ClassLabel(num_classes=2)}
        whole = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        for shard in range(shards):
            part = whole.shard(shards, shard)
            part.to_parquet(tmp_path / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet")
        return str(tmp_path / "data")

    return write
