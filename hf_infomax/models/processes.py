"""What processes of one run exchange; with one process each function is the identity.

Each that exchanges something is a collective call: every process must make it, in the same order, with a tensor of the same shape
and type. A gradient passes through `gather_with_gradient` alone, whose backward pass is a collective call too.
"""

from typing import Any

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


def gather_with_gradient(tensor: Tensor) -> Tensor:
    r"""`gather`, through which each process has the gradients that all processes have for what it gave.

    .. math:: \frac{\partial}{\partial x_r} \sum_{p=1}^{P} L_p

    is what reaches the x_r of process r, for the losses L_p of all: their sum over processes, cut to its own part. So where a run
    averages the gradients of the parameters over processes, as distributed data parallel training does, they are those of the
    mean of the losses. Other gathers give no gradient, or that of the own loss alone: of InfoNCE that lacks what makes an image
    a negative of other processes' images.

    Every process must run the backward pass as well, whatever its loss is made of: one without a use for x keeps it in its graph
    by a summand of weight 0. The type stays what it is, with autocast or without.

    Args:
        tensor: (B, ...), of the same shape and type on all processes.

    Returns:
        (P * B, ...), in the order of the processes, the same on all; with one process the tensor itself.

    >>> import torch
    >>> x = torch.randn(8, 16, requires_grad=True)
    >>> gather_with_gradient(x) is x
    True
    """
    return _GatherWithGradient.apply(tensor) if world()[1] > 1 else tensor


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return gather(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return own_part(total(gradient))


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


def own_weight(count: int, device: torch.device) -> float:
    """What a mean over `count` own images is multiplied with, so that its mean over processes is the mean over the images of all:
    P n_r / (n_1 + ... + n_P), which is 1 where all have as many."""
    return world()[1] * count / max(total(torch.tensor(count, device=device)).item(), 1)
