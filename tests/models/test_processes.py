"""Two processes with half of the batch each, against one with all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_infomax
from hf_infomax.models import regions
from hf_infomax.models.processes import gather, own_part, total, world

ROOT = Path(__file__).parents[2]
SAMPLES, BATCH, STEPS = 33, 8, 3

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


def build(name):
    """The model of a setting, and its training state; at 0.07 the steps would blow rounding up."""
    config, _, model, _ = hf_infomax.METHODS[name.split()[0]]
    options = {key: value for key, value in SETTINGS[name].items() if key != "searched"}
    model = model(config(**ENCODER, **{"negatives": "bank", "bank_fill": "random", "temperature": 0.2, **options}))
    return model, model.training_state(SAMPLES, torch.device("cpu"))


def run(name, folder):
    """A few steps of plain gradient descent -> what each saw; the state is saved half-way, and read by the next run."""
    torch.manual_seed(0)
    rank, processes = world()
    folder.mkdir(parents=True, exist_ok=True)
    searched = SETTINGS[name].get("searched", regions._SEARCHED_PER_FOUND)
    with mock.patch.object(regions, "_SEARCHED_PER_FOUND", searched):
        model, state = build(name)
        state.before_epoch(1, model, list)
        found = steps(model, state, rank, processes)
    state.save(folder / f"{processes}")
    rows = {view: bank.lookup(torch.arange(SAMPLES)) for view, bank in state.banks.items()}
    rows |= {f"{view}-neighbors": close.table for view, close in (state.close or {}).items()}
    if rank == 0:
        save_file(rows, folder / f"rows-{processes}.safetensors")
    return found


def steps(model, state, rank, processes):
    """What each step saw."""
    images, found = torch.rand(SAMPLES, 3, 32, 32), []
    for step in range(STEPS):
        index = torch.randperm(SAMPLES)[:BATCH].chunk(processes)[rank]
        output = model(images[index], state=state, sample_index=index)
        model.zero_grad()
        output.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        gradient, loss = total(gradient) / processes, total(output.loss.detach()) / processes
        parts = {part: (total(value) / processes).item() for part, value in output.parts.items()}
        with torch.no_grad():
            for parameter, part in zip(
                model.parameters(), gradient.split([p.numel() for p in model.parameters()]), strict=True
            ):
                parameter -= 0.1 * part.view_as(parameter)
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
    found = {name: run(name, folder / name) for name in SETTINGS}
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


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_are_one(folder, name):
    alone = run(name, folder / "alone" / name)
    shared = json.loads((folder / "found.json").read_text())[name]
    for one, two in zip(alone, shared, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert two["parts"] == pytest.approx(one["parts"], abs=1e-5)
        expected = torch.tensor(one["gradient"])
        error = (torch.tensor(two["gradient"]) - expected).abs().max() / expected.abs().max()
        assert error < 1e-5
    rows = load_file(folder / "alone" / name / "rows-1.safetensors")
    for key, expected in load_file(folder / name / "rows-2.safetensors").items():
        torch.testing.assert_close(rows[key], expected, rtol=0, atol=1e-5)


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
    assert all(function(part) is part for function in (gather, own_part, total))


if __name__ == "__main__":
    child(Path(sys.argv[1]))
