import psutil
import pytest
import torch

from threads import Threads


@pytest.fixture(autouse=True)
def count():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("others", "expected"), [(0, 3), (0.4, 3), (1.1, 3), (2.0, 2), (2.7, 1), (9.0, 1)])
def test_as_many_as_are_free_and_never_more_than_at_first(others, expected, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    torch.set_num_threads(3)
    assert Threads().beside(others) == expected


class Machine:
    """Four cores whose work is told by hand, in seconds of them."""

    def __init__(self, monkeypatch):
        self.now, self.busy, self.own = 0.0, 100.0, 50.0
        times = psutil.cpu_times()
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(psutil, "cpu_times", lambda: times._replace(**self._as(times)))
        monkeypatch.setattr("threads._seconds", lambda process: self.own)
        monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [])

    def _as(self, times):
        return dict.fromkeys(times._fields, 0.0) | {"user": self.busy, "idle": 1e6}

    def passes(self, seconds, own, others):
        self.now += seconds
        self.own += own * seconds
        self.busy += (own + others) * seconds


def test_the_number_follows_the_neighbours(monkeypatch):
    machine = Machine(monkeypatch)
    threads = Threads(seconds=2)
    for others, expected in ((0, 2), (3.1, 1), (3.1, 1), (1.0, 2)):
        machine.passes(2.5, own=torch.get_num_threads(), others=others)
        threads.fit()
        assert torch.get_num_threads() == expected
    machine.passes(1.0, own=2, others=4)
    threads.fit()
    assert torch.get_num_threads() == 2  # too early to look


def test_a_given_number_stays(monkeypatch):
    machine = Machine(monkeypatch)
    threads = Threads(count=1)
    assert torch.get_num_threads() == 1
    machine.passes(10, own=1, others=0)
    threads.fit()
    assert torch.get_num_threads() == 1
