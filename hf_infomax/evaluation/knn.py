"""Nearest neighbours: the weighted vote of a bank of labelled features, the evaluation that trains nothing."""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_infomax.models.errors import UsageError, choose
from hf_infomax.models.search import nearest

from .features import require_finite
from .probes import ProbeResult
from .shortlist import nearest_by_cosine
from .splits import check_features, number_classes

#: Values held at once, 64 MiB of float32: queries go in chunks, so that memory does not grow with their number.
MAX_SCORES = 2**24


def _cosine(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    similarity, indices = nearest_by_cosine(queries, bank, k)
    return 1 - similarity, indices


def _l2(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    # |q - x|^2 = |q|^2 - 2 (q x - |x|^2 / 2): the nearest have the largest products with one column more, about the mean of the
    # bank, where the squares are small. Their distances are taken from the features: a difference of squares is never zero.
    mean = bank.mean(dim=0)
    queries, bank = queries - mean, bank - mean
    columns = torch.cat([bank, bank.square().sum(dim=1, keepdim=True) / -2], dim=1)  # (N, F + 1)
    _, indices = nearest(F.pad(queries, (0, 1), value=1.0), columns, k)
    chunks = zip(
        *(values.split(max(1, MAX_SCORES // (k * bank.shape[1]))) for values in (queries, indices)), strict=True
    )
    return torch.cat([(query[:, None] - bank[found]).norm(dim=2) for query, found in chunks]), indices


def _l1(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if bank.device.type == "cpu" and importlib.util.find_spec("faiss"):
        import faiss  # six times torch.cdist on one thread; a part of the extra "train" only

        distances, indices = faiss.knn(queries.detach().numpy(), bank.detach().numpy(), k, metric=faiss.METRIC_L1)
        return torch.from_numpy(distances), torch.from_numpy(indices)
    chunks = queries.split(max(1, MAX_SCORES // len(bank)))
    found = [torch.cdist(chunk, bank, p=1).topk(k, dim=1, largest=False) for chunk in chunks]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


#: Name -> (queries (Q, F), bank (N, F), k) -> distances and bank indices of the k nearest, (Q, k) each, in any order.
DISTANCES: dict[str, Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]] = {
    "cosine": _cosine,
    "l1": _l1,
    "l2": _l2,
}


def _neighbours(queries: Tensor, bank: Tensor, k: int, distance: str) -> tuple[Tensor, Tensor]:
    """Distances and bank indices of the k nearest, (Q, k) each, nearest first."""
    search = choose("distance", distance, DISTANCES)
    if not 1 <= k <= len(bank):
        raise UsageError(f"k = {k} neighbours cannot come from a bank of {len(bank)}: choose k from 1 to {len(bank)}.")
    if queries.shape[1:] != bank.shape[1:]:
        sizes = f"{tuple(queries.shape[1:])} and {tuple(bank.shape[1:])}"
        raise UsageError(f"Queries and bank have features of shapes {sizes}: take both from the same layer.")
    queries, bank = queries.float(), bank.float()
    require_finite(queries=queries, bank=bank)
    distances, indices = search(queries, bank, k)
    distances, order = distances.sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


@torch.inference_mode()
def nearest_neighbours(queries: Tensor, bank: Tensor, k: int = 4, distance: str = "l1") -> Tensor:
    """Which k entries of the bank are nearest to each query, as in DIM's Figure 7, which uses the L1 distance.

    Args:
        queries: (Q, F). A query that is itself in the bank is found first.
        bank: (N, F).
        k: neighbours of each query.
        distance: "cosine" (1 - cosine similarity), "l1" or "l2".

    Returns:
        Indices into the bank, (Q, k), nearest first.

    Raises:
        UsageError: k exceeds the bank, the features do not fit or are not finite, or there is no such distance.

    >>> nearest_neighbours(torch.tensor([[0.0], [9.0]]), torch.tensor([[8.0], [1.0], [5.0]]), k=2).tolist()
    [[1, 2], [0, 2]]
    """
    return _neighbours(queries, bank, k, distance)[1]


@torch.inference_mode()
def knn_predict(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    k: int = 20,
    distance: str = "cosine",
    temperature: float = 0.1,
    num_classes: int | None = None,
) -> Tensor:
    """The class with the largest weighted vote among each query's k nearest entries of the bank.

        w_i = exp(s_i / temperature),     class = argmax_c sum_{i : label_i = c} w_i

    For "cosine", s_i is the cosine similarity (Wu et al. 2018, section 3.4, who use temperature 0.07 and k = 200). The
    other two have a unit that differs from layer to layer, so there s_i = -d_i / (mean distance of that query's k
    neighbours): the vote does not change when all features are multiplied by a number.

    Args:
        queries: (Q, F).
        bank: (N, F), training features.
        labels: (N,) integers from 0.
        k: voters of each query.
        distance: "cosine", "l1" or "l2".
        temperature: the smaller, the more the nearest decide.
        num_classes: None: the largest label plus one.

    Returns:
        (Q,) int64; the smaller class where two votes are equal.

    Raises:
        UsageError: as `nearest_neighbours`, or labels and bank differ in length, or a label is not below `num_classes`.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4.

    >>> bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> knn_predict(torch.tensor([[2.0, 0.1], [0.0, 3.0]]), bank, torch.tensor([0, 0, 1]), k=2).tolist()
    [0, 1]
    """
    if temperature <= 0:
        raise UsageError(f"The kNN temperature is {temperature}: choose one above 0, such as 0.1.")
    if labels.shape != bank.shape[:1]:
        raise UsageError(f"The bank has {len(bank)} entries and {tuple(labels.shape)} labels: give one label for each.")
    labels = labels.to(bank.device).long()
    classes = num_classes or int(labels.max()) + 1
    if labels.min() < 0 or labels.max() >= classes:
        raise UsageError(f"Labels reach from {labels.min()} to {labels.max()}: they must lie in 0 ... {classes - 1}.")
    distances, indices = _neighbours(queries, bank, k, distance)
    if distance == "cosine":
        similarity = 1 - distances
    else:
        similarity = -distances / distances.mean(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    # Relative to the nearest: a common factor changes no vote, and a small temperature cannot overflow.
    weights = ((similarity - similarity[:, :1]) / temperature).exp()  # (Q, k)
    votes = weights.new_zeros(len(queries), classes).scatter_add_(1, labels[indices], weights)
    return votes.argmax(dim=1)


def knn_accuracy(
    queries: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    labels: Tensor,
    k: int = 20,
    distance: str = "cosine",
    temperature: float = 0.1,
    num_classes: int | None = None,
) -> float:
    """The fraction of queries that `knn_predict` classifies as `query_labels` (Q,) say, in [0, 1]; the rest as there.

    >>> bank, labels = torch.eye(3), torch.tensor([0, 1, 2])
    >>> knn_accuracy(bank, labels, bank, labels, k=1)
    1.0
    """
    if query_labels.shape != queries.shape[:1]:
        raise UsageError(f"There are {len(queries)} queries and {tuple(query_labels.shape)} labels: give one for each.")
    predicted = knn_predict(queries, bank, labels, k, distance, temperature, num_classes)
    return (predicted == query_labels.to(predicted.device)).float().mean().item()


def knn_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    seed: int = 0,
    k: int = 20,
    distance: str = "cosine",
    temperature: float = 0.1,
) -> ProbeResult:
    """Test accuracy of `knn_predict`, the training split being the bank; nothing is fitted, nothing standardised, nothing drawn.

    Args:
        train_x, test_x: features, (N, F) and (M, F).
        train_y, test_y: integer classes, (N,) and (M,).
        seed: of no effect; every probe takes one.
        k, distance, temperature: as in `knn_predict`.

    Returns:
        Metric "accuracy", in [0, 1]; `settings` holds k, distance and temperature.

    Raises:
        UsageError: as in `knn_predict`, or labels are not integers, or there is only one class.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4.

    `linear_probe` asks for a linear boundary in place of nearness.

    >>> x, y = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
    >>> knn_probe(x, y, x, y, k=3).value
    1.0
    """
    check_features(train_x, train_y, test_x, test_y, least=2)
    labels, test_labels, classes = number_classes(train_y.to(train_x.device), test_y.to(train_x.device))
    queries = test_x.to(train_x.device)
    value = knn_accuracy(queries, test_labels, train_x, labels, k, distance, temperature, len(classes))
    return ProbeResult(value, "accuracy", settings={"k": k, "distance": distance, "temperature": temperature})
