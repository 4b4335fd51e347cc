"""Speed and memory, fast way against slow way, in one run and as ratios.

    python training/benchmark.py [output=model_cards/benchmark.json]

Absolute figures differ from machine to machine; ratios hardly do. Run it on a machine that does nothing else.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import benchmark

import hf_infomax
from hf_infomax.data import DecodedDataset, recipes
from hf_infomax.models.negatives import InBatch
from measure import precision

IMAGES, LOCATIONS, UNITS = 128, 64, 256


def seconds(work: Callable[[], object]) -> float:
    """The median time of a call, over at least a second."""
    work()
    return benchmark.Timer("work()", globals={"work": work}).blocked_autorange(min_run_time=1.0).median


def train_step(model: torch.nn.Module, images: Tensor, autocast: bool) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameter_groups(1e-4), fused=True)

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            loss = model(images).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def dim_step(fast: bool, device: str) -> Callable[[], None]:
    """A training step of DIM(L): float32 and contiguous, or bfloat16 and channels_last."""
    model = hf_infomax.DIMForPreTraining(hf_infomax.DIMConfig(dot_units=UNITS)).to(device)
    images = torch.rand(IMAGES, 3, 32, 32, device=device)
    if fast:
        model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    return train_step(model, images, autocast=fast)


def expanded_infonce(x: Tensor, y: Tensor) -> Tensor:
    """DIM(L)'s InfoNCE as a score tensor with a row of negatives for every positive: (B, L, 1 + (B - 1) L)."""
    images, locations, _ = x.shape
    scores = torch.einsum("iu,jlu->ijl", y, x)
    others = ~torch.eye(images, dtype=torch.bool, device=x.device)
    negative = scores[others].view(images, 1, -1).expand(-1, locations, -1)
    logits = torch.cat([scores.diagonal().T.unsqueeze(-1), negative], dim=-1)
    return (logits[..., 0] - logits.logsumexp(dim=-1)).mean() + torch.tensor(logits.shape[-1]).log()


def matmul_infonce(x: Tensor, y: Tensor) -> Tensor:
    """The package's own way: one matmul, a masked logsumexp, nothing expanded."""
    return hf_infomax.bounds.infonce(*InBatch()(hf_infomax.critics.dot_scores, x, y))


def infonce_step(bound: Callable[[Tensor, Tensor], Tensor], device: str) -> Callable[[], None]:
    x = torch.randn(IMAGES, LOCATIONS, UNITS, device=device, requires_grad=True)
    y = torch.randn(IMAGES, UNITS, device=device, requires_grad=True)
    return lambda: bound(x / UNITS, y).backward()


def peak_megabytes(name: str) -> float:
    """The peak memory of one forward and backward of a bound, above what the process had before; of Linux alone.

    In a process of its own, whose high-water mark is set back after the imports, which reach higher.
    """
    code = (
        "import sys, pathlib; sys.argv = ['']; import benchmark\n"
        "read = lambda key: int(pathlib.Path('/proc/self/status').read_text().split(key)[1].split()[0]) / 1024\n"
        f"step = benchmark.infonce_step(benchmark.{name}, 'cpu'); pathlib.Path('/proc/self/clear_refs').write_text('5')\n"
        "before = read('VmRSS:'); step(); print(read('VmHWM:') - before)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return float(found.stdout)


def feeding() -> tuple[float, float]:
    """Seconds for a batch of 256 as `crop_flip` views: an image at a time, and batched."""
    dataset = DecodedDataset(torch.randint(256, (4096, 3, 32, 32), dtype=torch.uint8))
    views, index = recipes.load("crop_flip", image_size=32), torch.randperm(4096)[:256].tolist()
    one_by_one = seconds(
        lambda: torch.cat([views(dataset.__getitems__([i])["pixel_values"])["pixel_values"] for i in index])
    )
    return one_by_one, seconds(lambda: views(dataset.__getitems__(index)["pixel_values"]))


def main(arguments: list[str]) -> int:
    output = next((Path(a.partition("=")[2]) for a in arguments if a.startswith("output=")), None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []

    def compare(what: str, slow: float, fast: float, unit: str) -> None:
        rows.append({"what": what, "slow": slow, "fast": fast, "unit": unit, "ratio": slow / fast})
        print(f"{what:<58} {slow:>9.4g} -> {fast:<9.4g} {unit:<4} {slow / fast:5.1f}x", flush=True)

    if precision("auto") == "bf16":
        times = [seconds(dim_step(fast, device)) for fast in (False, True)]
        compare(f"DIM(L) step, {IMAGES} images: fp32 -> bf16, channels_last", *times, "s")
    steps = [infonce_step(bound, device) for bound in (expanded_infonce, matmul_infonce)]
    compare("DIM(L) InfoNCE: expanded scores -> matmul", *map(seconds, steps), "s")
    if device == "cpu" and sys.platform == "linux":
        compare("  its peak memory", peak_megabytes("expanded_infonce"), peak_megabytes("matmul_infonce"), "MiB")
    compare("256 views, crop_flip: one by one -> batched", *feeding(), "s")
    if output:
        machine = {
            "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
            "torch": torch.__version__,
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(
            json.dumps({"machine": machine | {"threads": torch.get_num_threads()}, "rows": rows}, indent=2) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
