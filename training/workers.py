"""Commands side by side: one on each GPU, or several that share a CPU."""

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hf_infomax import UsageError


@dataclass
class Job:
    """A command, and the file that what it prints goes to."""

    name: str  # to show where it fails
    command: list[str]
    log: Path


@dataclass
class Workers:
    """Runs jobs, so many at a time.

    A job is interrupted as Ctrl-C does it, once, and waited for, so that it can save what it has: when this process is interrupted,
    and when another job fails.

    Args:
        count: jobs at a time. On GPUs they go round these, and each sees one; on a CPU each takes its share of the cores.
    """

    count: int
    running: list[subprocess.Popen] = field(default_factory=list)
    stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)  # none starts behind a stop

    def finished(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """The jobs, each as it ends.

        Raises:
            UsageError: a job failed; the message is the last line that it printed.
        """
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.count):
            slots.put(slot)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        pool = ThreadPoolExecutor(self.count)
        try:
            futures = {pool.submit(self._run, job, slots): job for job in jobs}
            for future in as_completed(futures):
                if future.result() != 0:
                    raise failed(futures[future])
                yield futures[future]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            with self._lock:
                self.stopped = True
                for process in self.running:
                    process.send_signal(signal.SIGINT)
            pool.shutdown()
            signal.signal(signal.SIGTERM, before)

    def _run(self, job: Job, slots: "queue.SimpleQueue[int]") -> int:
        slot = slots.get()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a", encoding="utf-8") as log:
            with self._lock:
                if self.stopped:
                    return signal.SIGINT
                # In a session of its own: Ctrl-C reaches the job through this process alone, and thus once.
                process = subprocess.Popen(
                    job.command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | environment(slot, self.count),
                    start_new_session=True,
                )
                self.running.append(process)
            code = process.wait()
        with self._lock:
            self.running.remove(process)
        slots.put(slot)
        return code


def devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def share_of_cores(workers: int) -> int:
    return max(1, (os.cpu_count() or 1) // workers)


def environment(slot: int, workers: int) -> dict[str, str]:
    """What a job at that place is started with, beside what this process has."""
    if found := devices():
        return {"CUDA_VISIBLE_DEVICES": found[slot % len(found)]}
    return {"OMP_NUM_THREADS": str(share_of_cores(workers))}


def failed(job: Job) -> UsageError:
    lines = job.log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    return UsageError(f"{job.name} failed ({last.removeprefix('error: ').rstrip('.')}): see {job.log}.")
