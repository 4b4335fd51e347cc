"""Speed and memory of a memory bank at ImageNet's size: CMC's loss of one direction and its gradient. A part of benchmark.py."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_infomax.models.bank import MemoryBank
from hf_infomax.models.bounds import infonce
from hf_infomax.models.critics import Cosine
from hf_infomax.models.negatives import FromBank
from hf_infomax.models.regions import Candidates, Marginal

SAMPLES, SIZE, NEGATIVES, IMAGES = 1_280_000, 128, 16_384, 256
WHAT = f"bank of {SAMPLES:,} x {SIZE} in bf16, {NEGATIVES:,} negatives, {IMAGES} images"


def gathered(critic: Cosine, bank: MemoryBank, index: Tensor, candidates: Candidates, y: Tensor) -> Tensor:
    """The plain way, as the paper's code does it: all rows of all images at once."""
    rows = torch.cat([bank.rows[index].unsqueeze(1), bank.rows[candidates.index]], dim=1).float()  # (B, 1 + m, D)
    scores = torch.einsum("bd,bkd->bk", critic.embed_y(y), rows)
    return infonce(scores[:, :1], scores[:, None, 1:])


def asked(critic: Cosine, bank: MemoryBank, index: Tensor, candidates: Candidates, y: Tensor) -> Tensor:
    """The package's own."""
    return infonce(*FromBank(bank, index, candidates)(critic, y.unsqueeze(1), y))


WAYS: dict[str, tuple[Callable[..., Tensor], bool]] = {
    "all rows at once": (gathered, False),
    "an image's own": (asked, False),
    "shared by the batch": (asked, True),
}


def bank_step(way: str, device: str) -> Callable[[], None]:
    """A draw, the loss and its gradient."""
    estimate, shared = WAYS[way]
    bank = MemoryBank(SAMPLES, SIZE, dtype="bfloat16", device=device)
    critic, generator, region = Cosine(0.07), torch.Generator(device), Marginal(NEGATIVES, shared)
    index = torch.randint(SAMPLES, (IMAGES,), device=device)
    y = F.normalize(torch.randn(IMAGES, SIZE, device=device)).requires_grad_()
    draw = partial(region, {"x": bank}, index, generator)
    return lambda: estimate(critic, bank, index, draw()["x"], y).neg().backward()
