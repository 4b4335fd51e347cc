"""How many threads a run computes with: as many as the machine has cores free.

A thread that shares its core with a busy neighbour makes all others wait for it at the end of every operation: on two cores beside
one such process, two threads keep 0.4 of their speed and a single one 0.65. (How threads wait is in process.py.)
"""

import os
import time
from typing import NamedTuple

import psutil
import torch


class _Usage(NamedTuple):
    moment: float
    machine: float  # seconds that its cores have worked
    own: float


class Threads:
    """Torch's number of threads, fitted every few seconds to what other processes leave.

    Args:
        count: exactly so many, for runs that are to be equal to the last bit; None: at most torch's own number, at least one.
        seconds: between two looks.
    """

    def __init__(self, count: int | None = None, seconds: float = 2.0):
        if count is not None:
            torch.set_num_threads(count)
        self.fixed = count is not None
        self.most = torch.get_num_threads()
        self.seconds = seconds
        self.process = psutil.Process()
        self.last = self._usage()

    def fit(self) -> None:
        """Look, if it is time to."""
        if self.fixed or time.monotonic() - self.last.moment < self.seconds:
            return
        now, last = self._usage(), self.last
        own, machine = now.own - last.own, now.machine - last.machine
        torch.set_num_threads(self.beside((machine - own) / (now.moment - last.moment)))
        self.last = now

    def beside(self, others: float) -> int:
        """The number of threads where other processes keep so many cores busy."""
        return min(self.most, max(1, round((os.cpu_count() or 1) - others)))

    def _usage(self) -> _Usage:
        times = psutil.cpu_times()
        machine = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        own = [self.process, *self.process.children(recursive=True)]  # the loader's workers are its own
        return _Usage(time.monotonic(), machine, sum(_seconds(process) for process in own))


def _seconds(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:2])
    except psutil.Error:  # ended since
        return 0.0
