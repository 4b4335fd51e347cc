"""What processes of one run exchange; with one process each function is the identity.

No gradient passes through any of them. Every process must call them in the same order, with tensors of one shape.
"""

import torch
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, number of processes)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


@torch.no_grad()
def gather(tensor: Tensor) -> Tensor:
    """(B, ...) of each of P processes -> (P * B, ...), in their order, on all."""
    _, processes = world()
    if processes == 1:
        return tensor
    pieces = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(processes)]
    torch.distributed.all_gather(pieces, tensor.contiguous())
    return torch.cat(pieces)


@torch.no_grad()
def total(tensor: Tensor) -> Tensor:
    """The sum over the processes, on all."""
    if world()[1] > 1:
        torch.distributed.all_reduce(tensor := tensor.clone(memory_format=torch.contiguous_format))
    return tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process gave to a `gather`: its slice of (P * B, ...)."""
    rank, processes = world()
    return tensor.chunk(processes)[rank] if processes > 1 else tensor
