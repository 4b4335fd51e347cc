"""Random numbers that belong to an image, not to the moment: counter-based, so that nothing has a state.

The n-th number of an image is a hash of (seed, epoch, index of the image, n). Batch size, order, workers, processes,
device and resumption cannot change it, and a batch's numbers are a few integer operations on its device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# SplitMix64: G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # the golden ratio's odd increment, as a signed integer
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64

_AHEAD = 32  # numbers made at a time: a call costs as much as the hash of so many


class Draws:
    """The random numbers of a batch: every call gives each image the next numbers of its own sequence.

    Args:
        keys: (B,) int64, one an image; images of equal keys draw equal numbers.

    Example:
        >>> draws = Draws.of(seed=0, epoch=3, sample_index=torch.tensor([7, 2]))
        >>> draws.uniform(5).shape
        torch.Size([2, 5])
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys
        self._used = 0  # numbers that every image has drawn
        self._made = keys.new_zeros(len(keys), 0, dtype=torch.float32)  # the next ones, made ahead

    @classmethod
    def of(cls, seed: int, epoch: int, sample_index: Tensor) -> Draws:
        """The numbers of the images `sample_index` (B,) in an epoch of a run."""
        return cls(_key(_key(_key(0, seed), epoch), sample_index))

    @classmethod
    def anew(cls, batch: int, device: torch.device | str) -> Draws:
        """Numbers that differ from call to call, for images without an index: keys from torch's generator."""
        return cls(torch.randint(2**62, (batch,), device=device))

    def __len__(self) -> int:
        return len(self.keys)

    def fork(self, stream: int) -> Draws:
        """Another sequence of the same images, independent of this one: for their second view, say."""
        return Draws(_key(~self.keys, stream))

    def split(self, parts: int) -> Draws:
        """A sequence for each of `parts` pieces of every image, (B * parts) in all, the image's own side by side."""
        pieces = torch.tensor(range(parts), device=self.keys.device)
        return Draws(_key(~self.keys[:, None] ^ _MIX_1, pieces).flatten())

    def select(self, index: slice | Tensor) -> Draws:
        """The same numbers for some of the images."""
        chosen = Draws(self.keys[index])
        chosen._used, chosen._made = self._used, self._made[index]
        return chosen

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) float32, uniform on [low, high), in steps of (high - low) / 2^24."""
        count = math.prod(shape)
        if self._made.shape[1] < count:
            self._made = self._make(max(count, _AHEAD))
        unit, self._made = self._made[:, :count], self._made[:, count:]
        self._used += count
        return (unit * (high - low) + low).view(len(self), *shape)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) float32, standard normal, by Box and Muller's transform."""
        radius = (-2 * alike(torch.log, 1 - self.uniform(*shape))).sqrt()
        return radius * alike(torch.cos, 2 * math.pi * self.uniform(*shape))

    def integers(self, high: int | Tensor, *shape: int) -> Tensor:
        """(B, *shape) int64, uniform on 0 ... high - 1; `high` may be a tensor that broadcasts. Below 2^24."""
        return (self.uniform(*shape) * high).long().clamp_(max=high - 1)

    def happens(self, probability: float) -> Tensor:
        """(B,) bool, true with `probability`."""
        return self.uniform() < probability

    def permutation(self, length: int) -> Tensor:
        """(B, length) int64, a random order of 0 ... length - 1 for each image."""
        return self.uniform(length).argsort(dim=1)

    def _make(self, count: int) -> Tensor:
        # Multiplied here, where nothing overflows: a compiler would do it in symbols, and find the result too large.
        steps = [_signed(step * _GAMMA) for step in range(self._used + 1, self._used + 1 + count)]
        bits = _mix(self.keys[:, None] + torch.tensor(steps, device=self.keys.device))
        return _shifted(bits, 40).to(torch.float32) * 2.0**-24


def alike(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A transcendental function of float32, the same for equal numbers wherever they stand in a tensor.

    Evaluated in double precision: in single, the vectorised function and the scalar one of the tensor's last elements
    differ in the last bit, so that an image's views would depend on its batch.
    """
    wide = x if x.device.type == "mps" else x.double()  # Apple's GPUs have no double
    return function(wide).to(x.dtype)


def _key(key: int | Tensor, number: int | Tensor) -> int | Tensor:
    """The key of `number` under a key."""
    spread = number * _GAMMA + _GAMMA
    total = key + _mix(spread if isinstance(number, Tensor) else _signed(spread))
    return _mix(total if isinstance(total, Tensor) else _signed(total))


def _mix(x: int | Tensor) -> int | Tensor:
    x = _times(x ^ _shifted(x, 30), _MIX_1)
    x = _times(x ^ _shifted(x, 27), _MIX_2)
    return x ^ _shifted(x, 31)


def _times(x: int | Tensor, factor: int) -> int | Tensor:
    return x * factor if isinstance(x, Tensor) else _signed(x * factor)


def _shifted(x: int | Tensor, bits: int) -> int | Tensor:
    """x >> bits without the sign, which an int64 keeps."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    """Python's integer as an int64 holds it."""
    return (x + 2**63) % 2**64 - 2**63
