"""In a process of its own, without a network: here the name `evaluate` is training/evaluate.py's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_infomax import UsageError
from hf_infomax.evaluation import metrics

SCRIPT = """
import doctest, json
import evaluate
import torch
from hf_infomax.evaluation import metrics
from hf_infomax.evaluation.knn import knn_accuracy
from hf_infomax.evaluation.mine import mine
from hf_infomax.evaluation.ndm import neural_dependency
from hf_infomax.evaluation.reconstruction import ms_ssim
from hf_infomax.evaluation.metrics.mine import MINE

small = {"runs": 2, "steps": 5, "hidden": 8}
generator = torch.Generator().manual_seed(0)
x, y = torch.randn(2, 60, 3, generator=generator)
truth, labels = torch.randint(3, (2, 60), generator=generator)
images, others = torch.rand(2, 4, 3, 16, 16, generator=generator)
others = 0.9 * images + 0.1 * others
rows = {"predictions": y.tolist(), "references": x.tolist()}
load = {name: evaluate.load(metrics.path(name)) for name in metrics.NAMES}
found = {}

expected = mine(x, y, progress=False, **small)
expected = {"mine": expected.mean, "std": expected.std, "values": list(expected.values)}
found["mine"] = [load["mine"].compute(**rows, **small), expected]
found["imported mine"] = [MINE().compute(**rows, **small), expected]

expected = neural_dependency(y, sigmoid=True, progress=False, **small)
expected = {"ndm": expected.mean, "std": expected.std, "values": list(expected.values)}
found["ndm"] = [load["ndm"].compute(predictions=y.tolist(), sigmoid=True, **small), expected]

for half in (slice(0, 2), slice(2, 4)):  # as a loop over batches adds them
    load["ms_ssim"].add_batch(predictions=others[half].tolist(), references=images[half].tolist())
found["ms_ssim"] = [load["ms_ssim"].compute(), {"ms_ssim": ms_ssim(others, images).mean().item()}]

voters = {"bank": x.tolist(), "labels": labels.tolist(), "k": 5}
accuracy = knn_accuracy(y, truth, x, labels, k=5)
found["knn"] = [load["knn"].compute(predictions=y.tolist(), references=truth.tolist(), **voters), {"accuracy": accuracy}]

found["failed examples"] = [doctest.testmod(metrics).failed, 0]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(folder)}
    root = {"PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | offline | root, cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["mine", "imported mine", "ndm", "ms_ssim", "knn", "failed examples"])
def test_a_metric_computes_what_the_function_computes(computed, name):
    found, expected = computed[name]
    assert found == expected


def test_an_unknown_metric_is_named():
    with pytest.raises(UsageError, match="Unknown metric 'mime': choose one of knn, mine"):
        metrics.path("mime")
