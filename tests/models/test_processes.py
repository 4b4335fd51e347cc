"""Two processes with half of the batch each, against one with all of it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import hf_infomax
from hf_infomax.models import negatives, regions
from hf_infomax.models.bounds import infonce
from hf_infomax.models.critics import Cosine
from hf_infomax.models.key_queue import KeyQueue
from hf_infomax.models.momentum import MomentumCopy
from hf_infomax.models.negatives import InBatch
from hf_infomax.models.processes import gather, gather_with_gradient, own_part, own_weight, total, world

ROOT = Path(__file__).parents[2]
SAMPLES, BATCH, STEPS = 33, 8, 3
LARGE = 64  # batch of negatives of the batch

# Group norm: a batch norm would see half of the batch in each process.
ENCODER = {
    "backbone": "resnet18",
    "backbone_kwargs": {"norm_layer": "groupnorm1", "channels": [8, 8, 16, 16]},
    "representation_size": 8,
}
SHARDS = {"searched": 0}  # a bank of these few samples is searched as a large one is: each process its own rows
POOL = {"negatives": "ball", "ball_size": 16, "num_negatives": 6}
ANNULUS = {"negatives": "annulus", "ball_size": 24, "num_clusters": 8, "num_clusterings": 3, "num_neighbors": 5}
LA = {"negatives": "ball", "positives": "close", "ball_size": 24, "num_clusters": 8, "num_clusterings": 2}
SETTINGS = {
    "cmc": {"num_negatives": 12},
    "cmc shared": {"num_negatives": 12, "shared_negatives": True},
    "cmc nce": {"num_negatives": 12, "bound": "nce", "views": ["L", "a", "b"], "bank_positive": "batch"},
    "cmc annulus": {**ANNULUS, "close_neighbors": "nearest", **SHARDS},
    "instdisc": {"num_negatives": 12},
    "instdisc ball": {"negatives": "ball", "ball_size": 10},
    "instdisc pool in shards": {**POOL, **SHARDS},
    "instdisc pool mlp": {**POOL, "critic": "mlp1", "critic_units": 8},
    "instdisc annulus of clusters": ANNULUS,
    "instdisc annulus of the nearest": {**ANNULUS, "close_neighbors": "nearest"},
    "instdisc la": {**LA, **SHARDS, "anneal": "linear", "anneal_epochs": 1},
}


DEPTH = {"views": ["L", "ab", "depth"], "columns": {"depth": {}}}
LOCAL = {"gamma": 0.0, "dot_units": 16, "concat_units": 8, "num_negatives": None}
SIMCLR = {"negatives": "batch", "critic_units": 8}
IN_BATCH = {
    "dim local": LOCAL,
    "dim local drawn": {**LOCAL, "num_negatives": 5},
    "dim local jsd": {**LOCAL, "bound": "jsd"},
    "dim local concat drawn": {**LOCAL, "local_critic": "concat", "num_negatives": 5},
    "dim global": {**LOCAL, "alpha": 1.0, "beta": 0.0},
    "cmc": {"negatives": "batch"},
    "cmc drawn": {"negatives": "batch", "num_negatives": 5, **DEPTH},
    "cmc patch": {"negatives": "batch", "contrast": "patch", "dot_units": 16},
    "instdisc": SIMCLR,
    "instdisc bilinear": {**SIMCLR, "critic": "bilinear"},
    "instdisc mlp": {**SIMCLR, "critic": "mlp1"},
    "instdisc jsd": {**SIMCLR, "bound": "jsd"},
}
# In batches of 8, of 4 each: the second process has none; each has one; both have some; a single image has it, which is too few.
THERE = torch.tensor(
    [[1, 1, 0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 1, 0], [1, 0, 1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]]
).bool()
MISSING = {
    "cmc": {"negatives": "batch", **DEPTH},
    "cmc drawn": {"negatives": "batch", "num_negatives": 1, **DEPTH},
    "cmc patch": {"negatives": "batch", "contrast": "patch", "dot_units": 16, **DEPTH},
    "cmc bank": {"num_negatives": 12, **DEPTH},
}


QUEUE = {"queue_size": 100, "queue_fill": "grow", "encoder_momentum": 0.9, "jigsaw_pieces": 4}
KEYS = {
    "infomin": QUEUE,
    "infomin concat": {**QUEUE, "critic": "mlp1", "critic_units": 8},
    "infomin running": {**QUEUE, "key_norm": "running"},
    "infomin batch": {**QUEUE, "negatives": "batch"},
    "infomin simclr": {"negatives": "batch", "encoder_momentum": None, "jigsaw_weight": 0.0},
    "infomin pirl": {"negatives": "bank", "encoder_momentum": None, "num_negatives": 12, "jigsaw_pieces": 4},
}


def build(name, settings=SETTINGS):
    """The model of a setting, and its training state; at 0.07 the steps would blow rounding up."""
    method = name.split()[0]
    config, _, model, _ = hf_infomax.METHODS[method]
    options = {key: value for key, value in settings[name].items() if key != "searched"}
    if method != "dim":
        options = {"negatives": "bank", "bank_fill": "random", "temperature": 0.2, **options}
    model = model(config(**ENCODER, **options))
    return model, model.training_state(SAMPLES, torch.device("cpu"))


def precise(model, state):
    """With encoders in float64, so that little but the negatives can make a difference."""
    for encoder in model.model.encoders.values():
        encoder.double().register_forward_pre_hook(lambda _, views: (views[0].double(),))
        encoder.register_forward_hook(lambda *passed: {name: layer.float() for name, layer in passed[2].items()})
    return model, state


def run(name, folder):
    """A few steps of plain gradient descent -> what each saw; the state is saved half-way, and read by the next run."""
    torch.manual_seed(0)
    rank, processes = world()
    folder.mkdir(parents=True, exist_ok=True)
    searched = SETTINGS[name].get("searched", regions._SEARCHED_PER_FOUND)
    with mock.patch.object(regions, "_SEARCHED_PER_FOUND", searched):
        model, state = build(name)
        state.before_epoch(1, model, list)
        found = steps(model, state, banked())
    state.save(folder / f"{processes}")
    rows = {view: bank.lookup(torch.arange(SAMPLES)) for view, bank in state.banks.items()}
    rows |= {f"{view}-neighbors": close.table for view, close in (state.close or {}).items()}
    if rank == 0:
        save_file(rows, folder / f"rows-{processes}.safetensors")
    return found


def run_in_batch(name):
    """What a step with negatives of a larger batch sees, of views as the method has them."""
    torch.manual_seed(0)
    model, _ = precise(*build(name, IN_BATCH))
    views = (2,) if name.startswith("instdisc") else ()
    columns = {"depth": (1, 32, 32)} if "views" in IN_BATCH[name] else {}
    shapes = {"pixel_values": (*views, 3, 32, 32), **columns}
    return steps(model, None, [{key: torch.rand(LARGE, *shape) for key, shape in shapes.items()}])


def run_keys(name, folder):
    """What steps with a momentum copy and pieces see; the state is saved."""
    torch.manual_seed(0)
    options = {"bank_fill": "random", "temperature": 0.2, "head_units": 8, **KEYS[name]}
    model, _ = precise(hf_infomax.InfoMinForPreTraining(hf_infomax.InfoMinConfig(**ENCODER, **options)), None)
    state = model.training_state(2 * LARGE, torch.device("cpu"))
    for queue in getattr(state, "queues", {}).values():  # without keys the first step would have no gradient
        queue.enqueue(own_part(torch.randn(LARGE, 8)))
    batches = (
        {
            "pixel_values": torch.rand(LARGE, 2, 3, 32, 32),
            "jigsaw_values": torch.rand(LARGE, 4, 3, 12, 12),
            "sample_index": torch.randperm(2 * LARGE)[:LARGE],
        }
        # By an MLP keys that are all alike have scores that are too, whose gradient is a difference of roundings.
        for _ in range(1 if "concat" in name else STEPS)
    )
    found = steps(model, state, batches, learning_rate=0.01)
    if state is not None:
        state.save(folder / name / f"{world()[1]}")
    return found


def shuffled_keys(folder):
    """Keys of batch norms, which see groups of four images of all processes."""
    torch.manual_seed(0)
    model = hf_infomax.InfoMinForPreTraining(hf_infomax.InfoMinConfig(head_units=8, jigsaw_weight=0.0))
    copy = MomentumCopy(model, group=4)
    keys = gather(copy(own_part(torch.rand(BATCH, 3, 32, 32)))["RGB"])
    if world()[0] == 0:
        save_file({"keys": keys}, folder / f"shuffled-{world()[1]}.safetensors")


def run_missing(name):
    """The same where images lack a view, with one set of weights."""
    torch.manual_seed(0)
    model, state = precise(*build(name, MISSING))
    batches = (
        {
            "pixel_values": torch.rand(BATCH, 3, 32, 32),
            "depth": torch.rand(BATCH, 1, 32, 32),
            "sample_index": torch.randperm(SAMPLES)[:BATCH],
            "present": {"depth": there, "semantic": there},  # of a view that the model does not look at, too
        }
        for there in (*THERE, torch.ones(BATCH, dtype=torch.bool))
    )
    return steps(model, state, batches, learning_rate=0.0)


def banked():
    images = torch.rand(SAMPLES, 3, 32, 32)
    for _ in range(STEPS):
        index = torch.randperm(SAMPLES)[:BATCH]
        yield {"pixel_values": images[index], "sample_index": index}


def own(batch):
    return {key: own(value) if isinstance(value, dict) else own_part(value) for key, value in batch.items()}


def steps(model, state, batches, learning_rate=0.1):
    """What each step saw."""
    found, processes = [], world()[1]
    for step, batch in enumerate(batches):
        output = model(**own(batch), state=state)
        model.zero_grad()
        output.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        gradient, loss = total(gradient) / processes, total(output.loss.detach()) / processes
        parts = {part: (total(value) / processes).item() for part, value in output.parts.items()}
        with torch.no_grad():
            for parameter, part in zip(
                model.parameters(), gradient.split([p.numel() for p in model.parameters()]), strict=True
            ):
                parameter -= learning_rate * part.view_as(parameter)
        if state is not None:
            state.after_step(output, step)
        found.append({"loss": loss.item(), "gradient": gradient.tolist(), "parts": parts})
    return found


def lopsided(rank):
    """A step in which the second process has no sample of a view: nobody may wait for the other."""
    config = hf_infomax.CMCConfig(
        **ENCODER, views=["L", "ab", "depth"], columns={"depth": {}}, negatives="bank", bound="nce"
    )
    model = hf_infomax.CMCForPreTraining(config)
    state = model.training_state(SAMPLES, torch.device("cpu"))
    index, depth = torch.arange(4) + 4 * rank, torch.rand(4, 1, 32, 32)
    present = {"depth": torch.tensor([True, rank == 0, False, rank == 0]) & (rank == 0)}
    for step in range(2):
        output = model(torch.rand(4, 3, 32, 32), state=state, sample_index=index, present=present, depth=depth)
        output.loss.backward()
        state.after_step(output, step)
    assert output.loss.isfinite()
    assert (output.parts["L->depth"] == 0) == (rank == 1)
    assert state.banks["depth"].valid[:8].tolist() == [True, True, False, True, *[False] * 4]
    assert len(set(gather(state.log_z["depth->L"].unsqueeze(0)).tolist())) == 1


def error_with(gathered):
    """Of the gradient of InfoNCE in what this process gives, averaged as DDP does, relative to that of the whole batch in one."""
    x, y = torch.randn(2, 12, 1, 8, generator=torch.Generator().manual_seed(1))
    one, whole = own_part(x).clone().requires_grad_(), x.clone().requires_grad_()
    with mock.patch.object(negatives, "gather_with_gradient", gathered):
        loss = -infonce(*InBatch()(Cosine(0.2), one, own_part(y).squeeze(1)))
    loss.backward()
    scores = F.normalize(y.squeeze(1), dim=1) @ F.normalize(whole.squeeze(1), dim=1).T / 0.2
    expected = F.cross_entropy(scores, torch.arange(12)) - math.log(12)
    expected.backward()
    assert (total(loss.detach()) / 2 - expected).abs() < 1e-6
    expected = own_part(whole.grad)
    return ((one.grad / 2 - expected).norm() / expected.norm()).item()


def with_own_gradient(tensor):
    """What a gather without a gradient is often mended to."""
    parts = list(gather(tensor).chunk(2))
    parts[world()[0]] = tensor
    return torch.cat(parts)


def gathered_gradients():
    errors = {gathered.__name__: error_with(gathered) for gathered in (gather_with_gradient, with_own_gradient)}
    rank = world()[0]
    x = (torch.arange(6).reshape(2, 3) + 10 * rank).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        everyone = gather_with_gradient(x)
    assert (everyone.dtype, everyone.shape) == (torch.bfloat16, (4, 3))
    assert everyone[:, 0].tolist() == [0, 3, 10, 13]
    everyone.backward((torch.arange(12).reshape(4, 3) * (1 + rank)).bfloat16())  # of the two: once and twice
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.flatten().tolist() == [3 * (6 * rank + k) for k in range(6)]
    one = torch.randn(1, 1, 4)
    positive, negative = InBatch(1)(Cosine(), one, one[0])  # a batch of one, but there are two
    assert (positive.shape, negative.shape) == ((1, 1), (1, 1, 1))
    assert own_weight(3 * rank + 1, one.device) == 2 * (3 * rank + 1) / 5
    assert own_weight(0, one.device) == 0
    return errors


def child(folder):
    """What each of the two processes runs."""
    torch.distributed.init_process_group("gloo")
    rank, processes = world()
    assert processes == 2
    part = torch.tensor([rank, 10 + rank])
    assert gather(part).tolist() == [0, 10, 1, 11]
    assert own_part(gather(part)).tolist() == part.tolist()
    assert total(part).tolist() == [1, 21]
    lopsided(rank)
    shuffled_keys(folder)
    found = {
        "bank": {name: run(name, folder / name) for name in SETTINGS},
        "batch": {name: run_in_batch(name) for name in IN_BATCH},
        "missing": {name: run_missing(name) for name in MISSING},
        "keys": {name: run_keys(name, folder) for name in KEYS},
        "errors": gathered_gradients(),
    }
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        __file__,
        str(folder),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "found.json").read_text())


def check(alone, shared, parts=True):
    for one, two in zip(alone, shared, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
        if parts:
            assert two["parts"] == pytest.approx(one["parts"], abs=1e-5)
        expected = torch.tensor(one["gradient"])
        error = (torch.tensor(two["gradient"]) - expected).abs().max() / expected.abs().max()
        assert error < 1e-5


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_are_one(folder, found, name):
    check(run(name, folder / "alone" / name), found["bank"][name])
    rows = load_file(folder / "alone" / name / "rows-1.safetensors")
    for key, expected in load_file(folder / name / "rows-2.safetensors").items():
        torch.testing.assert_close(rows[key], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", IN_BATCH)
def test_negatives_of_the_batch_are_of_both_processes(found, name):
    """A batch of 64 in one process, and of 32 in each of two."""
    check(run_in_batch(name), found["batch"][name])


@pytest.mark.parametrize("name", MISSING)
def test_processes_that_lack_different_views_are_one(found, name):
    alone, shared = run_missing(name), found["missing"][name]
    check(alone, shared, parts=False)  # each process' are of its own images
    too_few = [all(part == 0 for key, part in step["parts"].items() if "depth" in key) for step in shared]
    assert too_few == [False, False, False, name != "cmc bank", False]


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_of_both_processes(folder, found, name):
    """A batch of 64 in one process, and of 32 in each of two."""
    check(run_keys(name, folder / "alone"), found["keys"][name])
    if name in ("infomin", "infomin running"):
        one, two = (KeyQueue(100, 8), KeyQueue(100, 8))
        one.load(folder / "alone" / name / "1" / "RGB" / "queue.safetensors")
        two.load(folder / name / "2" / "RGB" / "queue.safetensors")
        assert (one.pointer, one.filled) == (two.pointer, two.filled) == ((STEPS + 1) * LARGE % 100, 100)
        assert one.samples.equal(two.samples)
        torch.testing.assert_close(one.rows, two.rows, rtol=0, atol=1e-5)


def test_shuffled_keys_do_not_depend_on_the_number_of_processes(folder):
    shuffled_keys(folder)
    one, two = (load_file(folder / f"shuffled-{processes}.safetensors")["keys"] for processes in (1, 2))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_a_gradient_passes_through_the_gather_of_what_is_embedded(found):
    errors = found["errors"]
    assert errors["gather_with_gradient"] < 1e-6
    assert errors["with_own_gradient"] > 0.1


def test_one_process_goes_on_from_two(folder):
    _, state = build("cmc")
    state.load(folder / "cmc" / "2")
    assert sorted(path.name for path in (folder / "cmc" / "2" / "L").iterdir()) == [
        "rows-0-of-2.safetensors",
        "rows-1-of-2.safetensors",
    ]
    for name, expected in load_file(folder / "cmc" / "rows-2.safetensors").items():
        assert torch.equal(state.banks[name].rows, expected)
    assert state.draws == STEPS


def test_one_process_knows_the_neighbours_that_two_have_found(folder):
    _, state = build("instdisc la")
    state.load(folder / "instdisc la" / "2")
    found = load_file(folder / "instdisc la" / "rows-2.safetensors")
    assert torch.equal(state.close["RGB"].table, found["RGB-neighbors"])
    assert torch.equal(state.banks["RGB"].rows, found["RGB"])
    assert (state.epoch, state.images) == (1, STEPS * BATCH)


def test_one_process_exchanges_nothing():
    part = torch.arange(3)
    assert world() == (0, 1)
    assert all(function(part) is part for function in (gather, gather_with_gradient, own_part, total))
    assert own_weight(3, part.device) == 1


if __name__ == "__main__":
    child(Path(sys.argv[1]))
