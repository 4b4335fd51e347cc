"""Speed and memory, fast way against slow way, in one run and as ratios.

    python training/benchmark.py [dataset=path/to/cifar10] [output=model_cards/benchmark.json] [steps_only=true]
        [probes_only=true]

Views against torchvision's, colour spaces against scikit-image's, the parts of a training step, the whole step against the encoder
alone, bounds and the memory bank against their plain form, the search for neighbours against FAISS, clusters, peak memory, probes
against scikit-learn. Absolute figures differ from machine to machine; ratios hardly do. Run it on a machine that does nothing else.
"""

import process  # noqa: F401 (before torch)

# isort: split
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import benchmark_bank
import benchmark_colors
import benchmark_neighbors
import benchmark_probes
import benchmark_steps
import benchmark_views
import command
import hf_infomax
from hf_infomax.models.negatives import InBatch
from recipe import cpu_capabilities, precision, read_settings
from stopwatch import interleaved

IMAGES, LOCATIONS, UNITS = 128, 64, 256


@dataclass
class Benchmark:
    dataset: str = "hf_infomax/colour_digits"  # of the views
    output: str | None = None  # a JSON file
    steps_only: bool = False  # the parts of a training step alone; what an output file has besides stays in it
    probes_only: bool = False  # the probes alone, likewise


@dataclass
class Row:
    """The slow way against the fast one."""

    what: str
    unit: str
    slow: float
    fast: float

    @property
    def ratio(self) -> float:
        """How many times better the fast way is."""
        return self.fast / self.slow if self.unit.endswith("/s") else self.slow / self.fast


@contextmanager
def one_thread() -> Iterator[None]:
    """What is compared with another library is given one thread, as that is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    return hf_infomax.bounds.infonce(*InBatch()(hf_infomax.critics.Dot(), x, y))


def infonce_step(bound: Callable[[Tensor, Tensor], Tensor], device: str) -> Callable[[], None]:
    x = torch.randn(IMAGES, LOCATIONS, UNITS, device=device, requires_grad=True)
    y = torch.randn(IMAGES, UNITS, device=device, requires_grad=True)
    return lambda: bound(x / UNITS, y).backward()


def peak_megabytes(step: str) -> float:
    """The peak memory of one call of a step, above what the process had before; of Linux alone.

    In a process of its own, whose high-water mark is set back after the imports, which reach higher, and which returns what
    making the step has left free, for the step would take that first.
    """
    module = step.partition(".")[0]
    code = (
        f"import sys, ctypes, pathlib; sys.argv = ['']; import process, {module}\n"
        "read = lambda key: int(pathlib.Path('/proc/self/status').read_text().split(key)[1].split()[0]) / 1024\n"
        f"step = {step}; getattr(ctypes.CDLL(None), 'malloc_trim', int)(0)\n"
        "pathlib.Path('/proc/self/clear_refs').write_text('5')\n"
        "before = read('VmRSS:'); step(); print(read('VmHWM:') - before)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return float(found.stdout)


def compare_bounds(device: str) -> Iterator[Row]:
    """The package's ways against the plain ones: a step, and the bound that matters most."""
    if precision("auto") == "bf16":
        works = {"slow": dim_step(False, device), "fast": dim_step(True, device)}
        yield Row(f"DIM(L) step, {IMAGES} images: fp32 -> bf16, channels_last", "s", **interleaved(works))
    works = {"slow": infonce_step(expanded_infonce, device), "fast": infonce_step(matmul_infonce, device)}
    yield Row("DIM(L) InfoNCE: expanded scores -> matmul", "s", **interleaved(works))
    if device == "cpu" and sys.platform == "linux":
        peaks = {
            name: peak_megabytes(f"benchmark.infonce_step(benchmark.{bound}, 'cpu')")
            for name, bound in (("slow", "expanded_infonce"), ("fast", "matmul_infonce"))
        }
        yield Row("  its peak memory", "MiB", **peaks)


def compare_colors(device: str, dataset: str) -> Iterator[Row]:
    """Colour conversions a second on one thread."""
    with one_thread():
        for space, taken in benchmark_colors.measure(device, dataset):
            what = f"{benchmark_colors.SIDE}x{benchmark_colors.SIDE} RGB to {space}: scikit-image -> batched"
            yield Row(what, "img/s", slow=1 / taken["scikit-image"], fast=1 / taken["batched"])


def compare_banks(device: str) -> Iterator[Row]:
    """A memory bank at scale: all rows of a batch at once, against the package's two ways."""
    slow, *ways = benchmark_bank.WAYS
    times = interleaved({way: benchmark_bank.bank_step(way, device) for way in benchmark_bank.WAYS}, least=3)
    for way in ways:
        yield Row(f"{benchmark_bank.WHAT}: {slow} -> {way}", "s", slow=times[slow], fast=times[way])
    if device == "cpu" and sys.platform == "linux":
        peaks = {way: peak_megabytes(f"benchmark_bank.bank_step({way!r}, 'cpu')") for way in benchmark_bank.WAYS}
        for way in ways:
            yield Row(f"  its peak memory, besides the bank: {slow} -> {way}", "MiB", slow=peaks[slow], fast=peaks[way])


def compare_searches() -> Iterator[Row]:
    """The nearest samples in a memory bank on a CPU: FAISS against the package's search, all samples against a pool."""
    slow, *ways = benchmark_neighbors.WAYS
    with one_thread():
        for samples, speed in benchmark_neighbors.measure_searches():
            what = f"top {benchmark_neighbors.TOP:,} of {samples:,} x {benchmark_neighbors.SIZE}"
            for way in ways:
                yield Row(f"{what}: {slow} -> {way}", "queries/s", slow=speed[slow], fast=speed[way])
            if sys.platform == "linux":
                step = f"benchmark_neighbors.search_step({{!r}}, {samples})"
                peaks = {way: peak_megabytes(step.format(way)) for way in benchmark_neighbors.WAYS}
                for way in ways:
                    what = f"  its peak memory, besides the rows: {slow} -> {way}"
                    yield Row(what, "MiB", slow=peaks[slow], fast=peaks[way])
        for what, speed in benchmark_neighbors.measure_pools():
            yield Row(what, "queries/s", slow=speed["all"], fast=speed["pool"])


def compare_views(device: str, dataset: str) -> Iterator[Row]:
    """Views a second on one thread: torchvision's, image by image, against the batched ones."""
    with one_thread():
        for what, taken in benchmark_views.measure(device, dataset):
            fast = taken.pop("batched")
            for name, slow in taken.items():
                yield Row(f"{what}: {name} -> batched", "img/s", slow=1 / slow, fast=1 / fast)


def report_clusters() -> Iterator[dict[str, Any]]:
    """How long the clusters of an epoch take on a CPU."""
    print("\nclusters of the rows of a memory bank, by FAISS on one thread")
    with one_thread():
        for taken in benchmark_neighbors.measure_clusters():
            note = f"  (extrapolated from {taken.extrapolated_from})" if taken.extrapolated_from else ""
            print(f"    {taken.what:<68} {taken.seconds:>9.4g} s{note}", flush=True)
            yield vars(taken)


def report_steps(device: str) -> Iterator[dict[str, Any]]:
    """Where the time of a step goes, and its peak memory."""
    for name, images, parts, against in benchmark_steps.measure(device):
        total = sum(parts.values())
        outside = sum(seconds for part, seconds in parts.items() if part.startswith("data"))
        print(
            f"\n{name}: {total:.3f} s a step of {images} images, {outside / total:.1%} of it for data; "
            f"{against:.2f} of the encoder's speed"
        )
        for part, seconds in parts.items():
            print(f"    {part:<30} {seconds * 1e3:>9.2f} ms {seconds / total:6.1%}")
        peak = {}
        if device == "cuda":
            peak = {"peak_mib": torch.cuda.max_memory_allocated() / 2**20}
        elif sys.platform == "linux":
            peak = {"peak_mib": peak_megabytes(f"benchmark_steps.one_step({name!r})")}
        if peak:
            print(f"    peak memory                    {peak['peak_mib']:>9.0f} MiB")
        yield {
            "run": name,
            "images": images,
            "seconds": parts,
            "data_share": outside / total,
            "speed_of_encoder": against,
            **peak,
        }


def report_probes() -> Iterator[dict[str, Any]]:
    """How long the probes of kept features take on a CPU, on one thread, and how accurate they are."""
    print("\nprobes, on one thread")
    with one_thread():
        for taken in benchmark_probes.measure():
            print(f"    {taken.what:<52} {taken.way:<24} {taken.seconds:>8.2f} s {taken.accuracy:7.2%}", flush=True)
            yield vars(taken)


def main(arguments: list[str]) -> None:
    """Measure everything, print it, and write `output` where it is given."""
    settings = read_settings(Benchmark, {}, arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = {"machine": {"device": device_name(), "torch": torch.__version__, "threads": torch.get_num_threads()}}
    whole = not (settings.steps_only or settings.probes_only)
    if whole:
        found |= compare_ways(device, settings.dataset)
    if whole or settings.probes_only:
        found["probes"] = list(report_probes())
    if whole or settings.steps_only:
        found["steps"] = list(report_steps(device))
    if whole and device == "cpu" and sys.platform != "win32":
        found["beside_a_neighbour"] = benchmark_steps.beside_a_neighbour(device)
        print(
            f"\nbeside a process that computes without pause, a run keeps {found['beside_a_neighbour']:.0%} of its speed"
        )
    if settings.output:
        path = Path(settings.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if not whole and path.is_file() else {}
        path.write_text(json.dumps(before | found, indent=2) + "\n")


def compare_ways(device: str, dataset: str) -> dict[str, Any]:
    """The fast ways against the slow ones, row by row, and the clusters."""
    rows = []
    for row in chain(
        compare_views(device, dataset),
        compare_colors(device, dataset),
        compare_bounds(device),
        compare_banks(device),
        compare_searches(),
    ):
        rows.append({**vars(row), "ratio": row.ratio})
        print(f"{row.what:<84} {row.slow:>9.4g} -> {row.fast:<9.4g} {row.unit:<9} {row.ratio:5.1f}x", flush=True)
    return {"rows": rows, "clusters": list(report_clusters())}


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return cpu_capabilities().get("cpu_name") or platform.machine()


if __name__ == "__main__":
    sys.exit(command.run(main, __doc__, sys.argv[1:], needs_arguments=False))
