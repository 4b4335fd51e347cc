import json

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from checkpoint import Progress, load, newest, save
from hf_infomax import UsageError


@pytest.fixture
def run():
    """A prepared network in channels_last whose optimizer has taken a step."""

    def make(width=8):
        accelerator = Accelerator(cpu=True)
        network = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
        network, optimizer = accelerator.prepare(network, optimizer)
        step(network, optimizer)
        return accelerator, network, optimizer

    return make


def step(network, optimizer):
    network(torch.linspace(-1, 1, 192).view(1, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_what_is_saved_comes_back(run, tmp_path):
    accelerator, network, optimizer = run()
    path = save(tmp_path, accelerator, network, optimizer, None, Progress(step=1, epoch=2, batch=3), keep=2)
    random = torch.rand(3)
    step(network, optimizer)
    accelerator, other, other_optimizer = run()
    assert load(path, accelerator, other, other_optimizer, None) == Progress(step=1, epoch=2, batch=3)
    assert torch.equal(torch.rand(3), random)
    step(other, other_optimizer)  # the moments count, and lie in memory as their parameters do
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


class State:
    """A training state as a method with a bank would have it."""

    def __init__(self, bank):
        self.bank = bank

    def save(self, folder):
        folder.mkdir()
        (folder / "bank.json").write_text(json.dumps(self.bank))

    def load(self, folder):
        self.bank = json.loads((folder / "bank.json").read_text())


def test_the_training_state_saves_and_loads_itself(run, tmp_path):
    accelerator, network, optimizer = run()
    path = save(tmp_path, accelerator, network, optimizer, State([1, 2]), Progress(step=1), keep=2)
    state = State(None)
    load(path, accelerator, network, optimizer, state)
    assert state.bank == [1, 2]


def test_a_checkpoint_that_is_not_whole_is_not_found(run, tmp_path):
    assert newest(tmp_path / "nothing") is None
    accelerator, network, optimizer = run()
    whole = save(tmp_path, accelerator, network, optimizer, None, Progress(step=1), keep=2)

    class Crash:
        def save(self, folder):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        save(tmp_path, accelerator, network, optimizer, Crash(), Progress(step=2), keep=1)
    assert newest(tmp_path) == whole
    assert save(tmp_path, accelerator, network, optimizer, None, Progress(step=2), keep=1) == newest(tmp_path)
    assert not whole.exists()


def test_another_network_is_refused(run, tmp_path):
    path = save(tmp_path, *run(), None, Progress(), keep=1)
    with pytest.raises(UsageError, match="another model"):
        load(path, *run(width=4), None)
