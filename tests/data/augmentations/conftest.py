"""Pictures to augment, and the fidelity to torchvision: asserted, and printed as a table when all tests are over."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF

CIFAR10 = Path(__file__).resolve().parents[4] / "shared" / "data" / "cifar10"
TABLE = pytest.StashKey[dict[tuple[str, str], float]]()


class Fidelity:
    """Mean absolute differences to a reference; of several measurements the table shows the largest."""

    def __init__(self, table: dict[tuple[str, str], float]) -> None:
        self.table = table

    def __call__(self, operation: str, reference: str, ours: Tensor, theirs: Tensor, bound: float = 1 / 255) -> None:
        """Assert that the mean of |ours - theirs| is at most `bound`; both are uint8, or floating point in [0, 1]."""
        assert ours.shape == theirs.shape
        ours, theirs = [pixels / 255 if pixels.dtype == torch.uint8 else pixels.double() for pixels in (ours, theirs)]
        difference = (ours - theirs).abs().mean().item()
        self.table[operation, reference] = max(difference, self.table.get((operation, reference), 0.0))
        assert difference <= bound, f"{operation} is {255 * difference:.3g} of 255 away from {reference}"

    def to_torchvision(
        self,
        operation: str,
        pictures: Sequence[Tensor],
        ours: Callable[[Tensor], Tensor],
        theirs: Callable,
        tensor_bound: float = 1e-6,
        pillow_bound: float = 0.6 / 255,
    ) -> None:
        """`ours(images)` of a batch against `theirs(image, place)` of each tensor and of each Pillow image."""
        for pixels in pictures:
            result = ours(pixels / 255)
            tensors = torch.stack([theirs(image / 255, place) for place, image in enumerate(pixels)])
            self(operation, "torchvision, float", result, tensors, tensor_bound)
            pillow = [theirs(TF.to_pil_image(image), place) for place, image in enumerate(pixels)]
            pillow = torch.stack([TF.pil_to_tensor(image) for image in pillow])
            self(operation, "torchvision, Pillow", result, pillow, pillow_bound)


@pytest.fixture(scope="session")
def fidelity(pytestconfig):
    """Give `fidelity(operation, reference, ours, theirs)` what is to agree."""
    return Fidelity(pytestconfig.stash.setdefault(TABLE, {}))


def pytest_terminal_summary(terminalreporter, config):
    table = config.stash.get(TABLE, {})
    if not table:
        return
    width = max(len(operation) for operation, _ in table)
    terminalreporter.section("fidelity")
    terminalreporter.line(f"{'operation':{width}} | {'reference':20} | mean abs difference (of 255)")
    for (operation, reference), difference in sorted(table.items()):
        terminalreporter.line(f"{operation:{width}} | {reference:20} | {255 * difference:.6f}")


def smooth(batch: int, height: int, width: int) -> Tensor:
    """Blobs of light and of colour with a little noise, (B, 3, H, W) uint8, that reach both ends of the range.

    They are twice as colourful as photographs. Pillow turns hues in 8 bits, by up to 1/256 of the circle too little: what
    that does to fully saturated colours exceeds 1/255, in torchvision's own floating point as in ours.
    """
    generator = torch.Generator().manual_seed(height * width)
    light = 1.2 * torch.rand(batch, 1, 6, 6, generator=generator) - 0.1
    color = 0.5 * torch.rand(batch, 3, 6, 6, generator=generator) - 0.25
    blobs = F.interpolate(light + color, (height, width), mode="bicubic")
    noise = torch.randn(blobs.shape, generator=generator) / 50
    return ((blobs + noise).clamp(0, 1) * 255).round().to(torch.uint8)


@pytest.fixture(scope="session")
def real():
    """Photographs of 32 x 32, (B, 3, 32, 32) uint8, or None where they are not beside the repository."""
    files = sorted(CIFAR10.glob("**/test*.parquet"))
    if not files:
        return None
    from pyarrow import parquet

    rows = next(parquet.ParquetFile(files[0]).iter_batches(batch_size=24, columns=["image"])).to_pylist()
    images = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows]
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="session")
def pictures(real):
    """`pictures(height, width)` -> uint8 batches: smooth ones, and real ones at 32 x 32."""

    def make(height: int = 32, width: int = 32) -> list[Tensor]:
        made = [smooth(12, height, width)]
        return [*made, real] if real is not None and (height, width) == (32, 32) else made

    return make
