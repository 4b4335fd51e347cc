import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


def test_two_processes_train_one_model(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    rows = {"image": [Image.fromarray(image) for image in noise], "label": [index % 4 for index in range(64)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=4)})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [
        "training/pretrain.py",
        "dim_colour_digits_cpu",
        f"data.dataset={tmp_path / 'data'}",
        f"output_dir={out}",
    ]
    command += ["data.train_split=train[:48]", "data.eval_split=train[48:]", "train.batch_size=16", "train.epochs=2"]
    command += ["train.precision=fp32", "train.log_every=1", "eval.bank=32", "eval.k=5"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "results.json").read_text())["run"]
    assert run["hardware"]["processes"] == 2
    assert run["images_seen"] == 2 * 3 * 16
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps if "loss" in record] == [1, 2, 3, 4, 5, 6]
    last = sorted((out / "checkpoints").iterdir())[-1]
    first, second = (load_file(last / f"rng-{process}.safetensors")["cpu"] for process in (0, 1))
    assert not first.equal(second)  # each process draws views and negatives of its own
