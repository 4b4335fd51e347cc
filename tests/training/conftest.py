"""A recipe that runs in a second: a tiny encoder on the tests' digits."""

import pytest

TINY = (
    "model.backbone_kwargs={channels: [8, 12, 16], hidden_sizes: [24]}",
    "train.batch_size=32",
    "train.precision=fp32",
    "train.threads=1",
    "train.log_every=1",
    "eval.bank=100",
)


@pytest.fixture
def tiny(tmp_path):
    """Overrides of a tiny run: three steps an epoch, two epochs, into a folder of its own."""

    def overrides(*more: str, out: str = "run") -> list[str]:
        splits = ("data.train_split=train[:100]", "data.eval_split=train[100:140]", "train.epochs=2")
        return [*TINY, *splits, f"output_dir={tmp_path / out}", *more]

    return overrides
