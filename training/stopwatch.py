"""Times to be compared: taken in turns, so that whatever else the machine does meets all alike, and given as medians."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import torch


def synchronize() -> None:
    """Wait for the GPU, where there is one: its work is only begun when a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved(works: Mapping[str, Callable[[], object]], seconds: float = 4.0, least: int = 5) -> dict[str, float]:
    """The median time of a call of each, in seconds, over rounds in which each is called once."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(times[next(iter(works))]) < least:
        for name, work in works.items():
            synchronize()
            started = time.perf_counter()
            work()
            synchronize()
            times[name].append(time.perf_counter() - started)
    return {name: median(taken) for name, taken in times.items()}


class Parts:
    """The parts of a step: seconds by name, one number for each time that the part was entered."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        synchronize()
        started = time.perf_counter()
        yield
        synchronize()
        self.times[name].append(time.perf_counter() - started)

    def medians(self) -> dict[str, float]:
        """Name -> the median in seconds."""
        return {name: median(taken) for name, taken in self.times.items()}
