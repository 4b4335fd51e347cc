"""Two processes with half of the batch each, against one with all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_infomax
from hf_infomax.models.processes import gather, own_part, total, world

ROOT = Path(__file__).parents[2]
SAMPLES, BATCH, STEPS = 33, 8, 3

# Group norm: a batch norm would see half of the batch in each process.
ENCODER = {
    "backbone": "resnet18",
    "backbone_kwargs": {"norm_layer": "groupnorm1", "channels": [8, 8, 16, 16]},
    "representation_size": 8,
}
SETTINGS = [
    {"num_negatives": 12},
    {"num_negatives": 12, "shared_negatives": True},
    {"num_negatives": 12, "bound": "nce", "views": ["L", "a", "b"], "bank_positive": "batch"},
]


def run(options, folder):
    """A few steps of plain gradient descent -> what each saw; the state is saved half-way, and read by the next run."""
    torch.manual_seed(0)
    rank, processes = world()
    config = hf_infomax.CMCConfig(**ENCODER, negatives="bank", bank_fill="random", **options)
    model = hf_infomax.CMCForPreTraining(config)
    state = model.training_state(SAMPLES, torch.device("cpu"))
    images, found = torch.rand(SAMPLES, 3, 32, 32), []
    for step in range(STEPS):
        index = torch.randperm(SAMPLES)[:BATCH].chunk(processes)[rank]
        output = model(images[index], state=state, sample_index=index)
        model.zero_grad()
        output.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        gradient, loss = total(gradient) / processes, total(output.loss.detach()) / processes
        with torch.no_grad():
            for parameter, part in zip(
                model.parameters(), gradient.split([p.numel() for p in model.parameters()]), strict=True
            ):
                parameter -= 0.1 * part.view_as(parameter)
        state.after_step(output, step)
        found.append({"loss": loss.item(), "gradient": gradient.tolist()})
    state.save(folder / f"{processes}")
    rows = {name: bank.lookup(torch.arange(SAMPLES)) for name, bank in state.banks.items()}
    if rank == 0:
        save_file(rows, folder / f"rows-{processes}.safetensors")
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
    found = []
    for place, options in enumerate(SETTINGS):
        (folder / str(place)).mkdir(exist_ok=True)
        found.append(run(options, folder / str(place)))
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


@pytest.mark.parametrize("place", range(len(SETTINGS)))
def test_two_processes_are_one(folder, place):
    (folder / "alone" / str(place)).mkdir(parents=True)
    alone = run(SETTINGS[place], folder / "alone" / str(place))
    shared = json.loads((folder / "found.json").read_text())[place]
    for one, two in zip(alone, shared, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
        expected = torch.tensor(one["gradient"])
        error = (torch.tensor(two["gradient"]) - expected).abs().max() / expected.abs().max()
        assert error < 1e-5
    rows = load_file(folder / "alone" / str(place) / "rows-1.safetensors")
    for name, expected in load_file(folder / str(place) / "rows-2.safetensors").items():
        torch.testing.assert_close(rows[name], expected, rtol=0, atol=1e-5)


def test_one_process_goes_on_from_two(folder):
    model = hf_infomax.CMCForPreTraining(hf_infomax.CMCConfig(**ENCODER, negatives="bank", **SETTINGS[0]))
    state = model.training_state(SAMPLES, torch.device("cpu"))
    state.load(folder / "0" / "2")
    assert sorted(path.name for path in (folder / "0" / "2" / "L").iterdir()) == [
        "rows-0-of-2.safetensors",
        "rows-1-of-2.safetensors",
    ]
    for name, expected in load_file(folder / "0" / "rows-2.safetensors").items():
        assert torch.equal(state.banks[name].rows, expected)
    assert state.draws == STEPS


def test_one_process_exchanges_nothing():
    part = torch.arange(3)
    assert world() == (0, 1)
    assert all(function(part) is part for function in (gather, own_part, total))


if __name__ == "__main__":
    child(Path(sys.argv[1]))
