"""Speed and memory of neighbourhoods in a memory bank: the nearest samples, and the clusters. A part of benchmark.py.

On one thread of a CPU; the rows are uniform on the sphere, and the queries are rows.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from hf_infomax.models.bank import MemoryBank
from hf_infomax.models.neighbors import Clusters, require_faiss
from stopwatch import interleaved

SIZE, QUERIES = 128, 256

# The background neighbours of a batch in CIFAR-10 and, so that their growth is seen, in other numbers of samples.
TOP, CIFAR, IMAGENET = 4_096, 50_000, 1_280_000
SAMPLES = (10_000, CIFAR, 200_000, IMAGENET)
WAYS = ("FAISS", "float32", "bfloat16")

# The same share of a pool as of all.
POOL, TOP_OF_POOL = CIFAR // 4, TOP // 4

# An iteration of ImageNet's k-means takes minutes: the clusters of some of the points are looked for.
CLUSTERS, POINTS = 30_000, 20_000


@dataclass
class Duration:
    """How long something takes, and what was measured where it was not the whole."""

    what: str
    seconds: float
    extrapolated_from: str | None = None


def search_step(way: str, samples: int) -> Callable[[], object]:
    """The background neighbours of a batch."""
    torch.set_num_threads(1)  # in a process of its own too
    bank = MemoryBank(samples, SIZE, dtype="bfloat16" if way == "bfloat16" else "float32")
    index = torch.arange(QUERIES)
    queries = bank.lookup(index)
    if way != "FAISS":
        return lambda: bank.nearest(queries, TOP, exclude=index)
    faiss = require_faiss()
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(SIZE)
    flat.add(bank.rows.numpy())
    return lambda: flat.search(queries.numpy(), TOP + 1)  # each query finds itself


def pool_step(dtype: str, pooled: bool) -> Callable[[], object]:
    """The background neighbours of a batch among all samples, or in a pool that is drawn anew."""
    bank, index = MemoryBank(CIFAR, SIZE, dtype=dtype), torch.arange(QUERIES)
    queries = bank.lookup(index)
    if pooled:
        return lambda: bank.nearest(queries, TOP_OF_POOL, index, torch.randperm(CIFAR)[:POOL])
    return lambda: bank.nearest(queries, TOP, index)


def measure_searches() -> Iterator[tuple[int, dict[str, float]]]:
    """The number of samples, and queries a second by way."""
    for samples in SAMPLES:
        times = interleaved({way: search_step(way, samples) for way in WAYS}, seconds=2.0, least=3)
        yield samples, {way: QUERIES / taken for way, taken in times.items()}


def measure_pools() -> Iterator[tuple[str, dict[str, float]]]:
    """What is compared, and queries a second in all samples and in a pool."""
    for dtype in WAYS[1:]:
        times = interleaved({"all": pool_step(dtype, False), "pool": pool_step(dtype, True)}, seconds=2.0)
        what = f"top {TOP:,} of {CIFAR:,} in {dtype} -> top {TOP_OF_POOL:,} of a pool of {POOL:,}"
        yield what, {name: QUERIES / taken for name, taken in times.items()}


def measure_clusters() -> Iterator[Duration]:
    """The clusters of an epoch: those of CIFAR-10, and ImageNet's, extrapolated."""
    clusters, bank = Clusters(), MemoryBank(CIFAR, SIZE)
    started = time.perf_counter()
    clusters.refresh(bank, 0)
    every = f"{clusters.num_clusterings} k-means of {clusters.iterations} iterations"
    yield Duration(f"{every}, k = {clusters.num_clusters:,}, {CIFAR:,} x {SIZE}", time.perf_counter() - started)

    faiss = require_faiss()
    centres, points = faiss.IndexFlatL2(SIZE), MemoryBank(POINTS, SIZE, seed=1).rows.numpy()
    centres.add(MemoryBank(CLUSTERS, SIZE).rows.numpy())
    iteration = interleaved({"": lambda: centres.search(points, 1)}, least=3)[""] * IMAGENET / POINTS
    of, source = f"k = {CLUSTERS:,}, {IMAGENET:,} x {SIZE}", f"the clusters of {POINTS:,} points"
    yield Duration(f"an iteration of a k-means, {of}", iteration, source)
    passes = clusters.num_clusterings * (clusters.iterations + 1)  # the last says which cluster each row is in
    yield Duration(f"{every}, {of}", iteration * passes, source)
