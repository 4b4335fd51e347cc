"""Two processes of one run, forked, so that they need not import anew."""

import multiprocessing

import pytest
import torch

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="a process that need not import anew"
)


def meet(rank, folder):
    """Called first in each of the two."""
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)


def run_two(target, *args):
    """target(rank, *args) in two processes, until both have ended well."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=target, args=(rank, *args)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
