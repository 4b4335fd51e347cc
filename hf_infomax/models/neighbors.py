"""Close neighbours: which samples are taken for another view of a sample, by what a memory bank remembers (Local Aggregation)."""

from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .bank import MemoryBank
from .errors import UsageError, library
from .processes import gather, world

# Samples whose neighbours are looked for at a time.
_QUERIES = 2**12


class CloseNeighbors(ABC):
    """Which samples are close to which: a table with a line for each sample, made anew from the bank in every epoch.

    Args:
        seed: of what is random in it; all processes must give the same.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.table: Tensor | None = None  # (N, H) int32

    @abstractmethod
    def require(self, num_samples: int) -> None:
        """A `UsageError` where the data is too small."""

    @abstractmethod
    def refresh(self, bank: MemoryBank, epoch: int) -> None:
        """Make the table from the bank as it is now; a collective call, the same for the same bank, seed and epoch."""

    @abstractmethod
    def among(self, sample_index: Tensor, candidates: Tensor, share: float = 1.0) -> Tensor:
        """Which candidates are close neighbours of their sample.

        Args:
            sample_index: (B,) int64.
            candidates: (B, K) int64.
            share: of the neighbourhood that counts, from 0 (none of it) to 1.

        Returns:
            (B, K) bool.
        """

    def found(self) -> Tensor:
        """The table.

        Raises:
            UsageError: it has not been made yet.
        """
        if self.table is None:
            raise UsageError("Close neighbours have not been found yet: call state.before_epoch before the first step.")
        return self.table

    def save(self, file: Path) -> None:
        """Write the table, if there is one."""
        if self.table is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"table": self.table.contiguous()}, file)

    def load(self, file: Path, device: torch.device) -> None:
        """Read a table, if there is one."""
        self.table = load_file(file)["table"].to(device) if file.is_file() else None


class Clusters(CloseNeighbors):
    r"""The union over several k-means clusterings of the bank, :math:`C_i = \bigcup_h \{ j : c_h(j) = c_h(i) \}`.

    Zhuang et al. 2019; ten of them, by FAISS, in Wu et al. 2020 (B.3). Of P processes each makes every P-th clustering. What is
    kept is H numbers for each sample, whatever the size of its neighbourhood; of a share of it, so many of the clusterings count.

    Args:
        num_clusters: k of each k-means (300 for CIFAR-10, 30,000 for ImageNet).
        num_clusterings: H, which differ in their initial centres.
        iterations: of Lloyd's algorithm.
        seed: of the initial centres.
    """

    def __init__(self, num_clusters: int = 300, num_clusterings: int = 10, iterations: int = 20, seed: int = 0):
        super().__init__(seed)
        self.num_clusters, self.num_clusterings, self.iterations = num_clusters, num_clusterings, iterations

    def require(self, num_samples: int) -> None:
        if not 1 < self.num_clusters <= num_samples:
            raise UsageError(
                f"num_clusters={self.num_clusters} clusters cannot be made of {num_samples:,} samples: "
                f"choose 2 to {num_samples:,}."
            )

    @torch.no_grad()
    def refresh(self, bank: MemoryBank, epoch: int) -> None:
        rank, processes = world()
        known = bank.valid.nonzero().flatten()  # (N',): a sample without a row is in no cluster
        rows = bank.lookup(known).cpu()  # of all processes
        share = -(-self.num_clusterings // processes)  # the same on all: some may make one more than is wanted
        device, first = bank.rows.device, epoch * self.num_clusterings
        own = [self._cluster(rows, first + h, device) for h in range(rank, share * processes, processes)]
        made = gather(torch.stack(own).to(known.device)).unflatten(0, (processes, share)).transpose(0, 1).flatten(0, 1)
        # A sample without a row has a cluster of its own in each clustering, which no other number can be.
        nobody = -1 - torch.arange(bank.num_samples, dtype=torch.int32, device=known.device)
        self.table = nobody.unsqueeze(1).repeat(1, self.num_clusterings)
        self.table[known] = made[: self.num_clusterings].T

    def _cluster(self, rows: Tensor, count: int, device: torch.device) -> Tensor:
        """The `count`-th k-means of the run -> the cluster of each row, (N',) int32; on a GPU where FAISS is built for one."""
        faiss = require_faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        kmeans = faiss.Kmeans(
            rows.shape[1],
            min(self.num_clusters, len(rows)),
            niter=self.iterations,
            seed=(self.seed * 1_000_003 + count) % 2**31,
            min_points_per_centroid=1,  # said at length on the screen otherwise
            gpu=device.type == "cuda" and faiss.get_num_gpus() > 0,
        )
        kmeans.train(rows.numpy())
        return torch.from_numpy(kmeans.index.search(rows.numpy(), 1)[1]).flatten().int()

    def among(self, sample_index: Tensor, candidates: Tensor, share: float = 1.0) -> Tensor:
        close = torch.zeros_like(candidates, dtype=torch.bool)
        for clustering in self.found().T[: round(share * self.num_clusterings)]:
            close |= clustering[candidates] == clustering[sample_index].unsqueeze(-1)
        return close


class Nearest(CloseNeighbors):
    """The nearest samples in the bank: the plain alternative to `Clusters`, without k-means. Of a share, the nearest of them count.

    Args:
        num_neighbors: k.
    """

    def __init__(self, num_neighbors: int = 10):
        super().__init__()
        self.num_neighbors = num_neighbors

    def require(self, num_samples: int) -> None:
        if not 1 <= self.num_neighbors < num_samples:
            raise UsageError(
                f"num_neighbors={self.num_neighbors} close neighbours cannot be found among {num_samples:,} samples: "
                f"choose 1 to {num_samples - 1:,}."
            )

    @torch.no_grad()
    def refresh(self, bank: MemoryBank, epoch: int) -> None:
        tables = []
        for index in torch.arange(bank.num_samples, device=bank.rows.device).split(_QUERIES):
            scores, places = bank.nearest(bank.lookup(index), self.num_neighbors, exclude=index)
            # Without a row there is no neighbour but oneself.
            known = scores.isfinite() & bank.valid[index].unsqueeze(1)
            places = places.where(known, index.unsqueeze(1))
            tables.append(places.gather(1, scores.argsort(dim=1, descending=True)).int())  # the nearest first
        self.table = torch.cat(tables)

    def among(self, sample_index: Tensor, candidates: Tensor, share: float = 1.0) -> Tensor:
        count = round(share * self.num_neighbors)
        if not count:
            return torch.zeros_like(candidates, dtype=torch.bool)
        close = self.found()[sample_index, :count].long().sort(dim=1).values  # (B, k')
        place = torch.searchsorted(close, candidates.contiguous()).clamp(max=count - 1)
        return close.gather(1, place) == candidates


def require_faiss() -> ModuleType:
    """The library FAISS, imported when it is used: a published model has no use for it.

    Raises:
        UsageError: it is not installed.
    """
    remedy = "pip install \"hf-infomax[train]\", or take close_neighbors='nearest'"
    return library("faiss", "Clustering close neighbours", remedy)
