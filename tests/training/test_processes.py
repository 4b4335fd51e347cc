import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from hf_infomax.data import recipes
from recipe import load_recipe
from sources import training_loader, view_options

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


def views_by_index(settings, accelerator):
    """Index -> the views of the second epoch, of the images that this process sees; the child processes run it too."""
    recipe = load_recipe("dim_colour_digits_cpu", settings)
    loader = accelerator.prepare(training_loader(recipe, 8, accelerator)[0])
    views, found = recipes.load(image_size=8, **view_options(recipe)), {}
    for batch in loader:
        made = views(**batch, epoch=1)["pixel_values"].flatten(1)
        found |= dict(zip(batch["sample_index"].tolist(), made.tolist(), strict=True))
    return found


STREAM = """
import json, sys
from pathlib import Path

import torch
from accelerate import Accelerator

from hf_infomax.data import recipes
from recipe import load_recipe
from sources import training_loader, view_options

accelerator = Accelerator()
"""

STREAM += inspect.getsource(views_by_index)

STREAM += """
decoded = [*sys.argv[2:], "data.streaming=false", "views.recipe=infomin", "train.batch_size=20"]
Path(sys.argv[1], f"views-{accelerator.process_index}.json").write_text(json.dumps(views_by_index(decoded, accelerator)))

loader, _ = training_loader(load_recipe("dim_colour_digits_cpu", sys.argv[2:]), 8, accelerator)
loader = accelerator.prepare(loader)

def levels(loader, epoch):
    found = []
    for batch in loader:
        accelerator.reduce(torch.ones(1))  # what a step does: wait for the others
        found += batch["pixel_values"].amax(dim=(1, 2, 3)).tolist()
    assert accelerator.gradient_state.num_steps == 1
    return found

epochs = []
for epoch in (0, 1):
    loader.set_epoch(epoch)
    epochs.append(levels(loader, epoch))
loader.set_epoch(1)
rest = levels(accelerator.skip_first_batches(loader, 15), 1)
Path(sys.argv[1], f"{accelerator.process_index}.json").write_text(json.dumps([*epochs, rest]))
"""


def test_two_processes_share_a_stream_and_see_the_views_of_one(tmp_path):
    rows = {
        "image": [Image.new("RGB", (8, 8), (level, 0, 0)) for level in range(41)]
    }  # 21 for one and 20 for the other
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "data" / "train.parquet")
    (tmp_path / "stream.py").write_text(STREAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [tmp_path / "stream.py", tmp_path, f"data.dataset={tmp_path / 'data'}", "output_dir=unused"]
    command += ["data.train_split=train", "data.streaming=true", "data.shuffle_buffer=10"]
    command += ["train.batch_size=2", "train.max_steps=100"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'training'}"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{process}.json").read_text()) for process in (0, 1))
    for epoch in (0, 1):
        assert len(first[epoch]) == len(second[epoch]) == 20
        assert len({*first[epoch], *second[epoch]}) == 40  # of 41: an incomplete step is dropped
    assert first[0] != first[1]
    assert (first[2], second[2]) == (first[1][15:], second[1][15:])

    settings = [f"data.dataset={tmp_path / 'data'}", "output_dir=unused", "data.train_split=train"]
    alone = views_by_index([*settings, "views.recipe=infomin", "train.batch_size=20"], Accelerator(cpu=True))
    shared = [json.loads((tmp_path / f"views-{process}.json").read_text()) for process in (0, 1)]
    assert not shared[0].keys() & shared[1].keys()
    for index, values in (shared[0] | shared[1]).items():
        np.testing.assert_allclose(values, alone.get(int(index), values), atol=1e-6)
    assert len(alone.keys() & {int(index) for part in shared for index in part}) >= 39  # of 41, each drops one
