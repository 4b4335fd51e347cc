import math

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from hf_infomax.evaluation import knn, knn_accuracy, knn_predict, nearest_neighbours
from hf_infomax.evaluation.knn import knn_probe
from hf_infomax.models.errors import UsageError

DISTANCES = ("cosine", "l1", "l2")
METRICS = {"cosine": "cosine", "l1": "manhattan", "l2": "euclidean"}


@pytest.fixture
def problem():
    """Queries, bank and labels of four overlapping classes."""
    labels = torch.randint(4, (120,))
    bank = torch.randn(4, 6)[labels] + torch.randn(120, 6)
    return torch.randn(50, 6), bank, labels


def naive_distance(query, entry, distance):
    if distance == "cosine":
        return 1 - (query @ entry / (query.norm() * entry.norm())).item()
    return (query - entry).norm(p=1 if distance == "l1" else 2).item()


def naive_vote(query, bank, labels, k, distance, temperature):
    found = sorted(
        (naive_distance(query, entry, distance), int(label)) for entry, label in zip(bank, labels, strict=True)
    )[:k]
    unit = sum(value for value, _ in found) / k
    votes = [0.0] * (int(labels.max()) + 1)
    for value, label in found:
        votes[label] += math.exp((1 - value if distance == "cosine" else -value / unit) / temperature)
    return votes.index(max(votes))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_vote_is_that_of_a_naive_loop(problem, distance, temperature):
    queries, bank, labels = problem
    expected = [naive_vote(query, bank, labels, 15, distance, temperature) for query in queries]
    assert knn_predict(queries, bank, labels, 15, distance, temperature).tolist() == expected


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_vote_is_that_of_scikit_learn(problem, distance):
    def weights(found):
        unit = 1 if distance == "cosine" else found.mean(axis=1, keepdims=True)
        return torch.from_numpy(-found / unit / 0.1).exp().numpy()

    queries, bank, labels = problem
    oracle = KNeighborsClassifier(15, metric=METRICS[distance], algorithm="brute", weights=weights)
    expected = oracle.fit(bank.double(), labels).predict(queries.double())
    assert knn_predict(queries, bank, labels, 15, distance).tolist() == expected.tolist()


@pytest.mark.parametrize("distance", DISTANCES)
def test_neighbours_are_those_of_scikit_learn(problem, distance):
    queries, bank, _ = problem
    oracle = NearestNeighbors(n_neighbors=7, metric=METRICS[distance], algorithm="brute").fit(bank.double())
    expected = oracle.kneighbors(queries.double(), return_distance=False)
    assert nearest_neighbours(queries, bank, 7, distance).tolist() == expected.tolist()


def test_chunks_change_nothing(problem, monkeypatch):
    queries, bank, labels = problem
    whole = knn_predict(queries, bank, labels)
    monkeypatch.setattr(knn, "MAX_SCORES", 7 * len(bank))  # seven queries at a time, the last chunk not full
    assert torch.equal(knn_predict(queries, bank, labels), whole)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_scale_of_the_features_does_not_matter(problem, distance):
    queries, bank, labels = problem
    votes = (knn_predict(scale * queries, scale * bank, labels, distance=distance) for scale in (1.0, 1024.0))
    assert torch.equal(*votes)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_duplicates_of_a_query_decide(distance):
    bank = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 3.0]])
    assert knn_predict(bank[:1], bank, torch.tensor([1, 1, 0]), k=2, distance=distance).tolist() == [1]


def test_a_small_temperature_trusts_the_nearest():
    queries, bank = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.05], [1.0, 0.4], [1.0, 0.41]])
    labels = torch.tensor([0, 1, 1])
    assert knn_predict(queries, bank, labels, k=3, temperature=1e-4).tolist() == [0]
    assert knn_predict(queries, bank, labels, k=3, temperature=10.0).tolist() == [1]


def test_accuracy_counts_the_right_ones():
    bank, labels = torch.eye(4), torch.arange(4)
    assert knn_accuracy(bank, torch.tensor([0, 1, 2, 0]), bank, labels, k=1) == 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 9}, "k = 9 .* bank of 8: choose k from 1 to 8"),
        ({"k": 0}, "k = 0"),
        ({"distance": "cosinus"}, "'cosinus': choose one of cosine, l1, l2"),
        ({"queries": torch.zeros(2, 5)}, "the same layer"),
        ({"queries": torch.full((2, 3), torch.nan)}, "queries holds NaN"),
        ({"labels": torch.zeros(7)}, "one label for each"),
        ({"labels": torch.full((8,), -1)}, "from -1"),
        ({"num_classes": 1, "labels": torch.arange(8)}, "0 to 7"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_mistakes_are_named(options, message):
    arguments = {"queries": torch.rand(2, 3), "bank": torch.rand(8, 3), "labels": torch.zeros(8).long(), "k": 2}
    with pytest.raises(UsageError, match=message):
        knn_predict(**(arguments | options))


def test_query_labels_must_fit():
    with pytest.raises(UsageError, match="2 queries"):
        knn_accuracy(torch.rand(2, 3), torch.zeros(3), torch.rand(8, 3), torch.zeros(8), k=1)


def test_the_probe_takes_any_integers(problem):
    queries, bank, labels = problem
    truth = torch.randint(4, (50,))
    found = knn_probe(bank, 7 * labels - 3, queries, 7 * truth - 3, k=9)
    assert found.value == pytest.approx(knn_accuracy(queries, truth, bank, labels, k=9))
    assert found.settings == {"k": 9, "distance": "cosine", "temperature": 0.1}


@pytest.mark.parametrize(
    ("labels", "k", "message"),
    [(torch.zeros(8), 2, "single class"), (torch.rand(8), 2, "integer"), (torch.arange(8) % 2, 9, "bank of 8")],
)
def test_mistakes_of_the_probe_are_named(labels, k, message):
    with pytest.raises(UsageError, match=message):
        knn_probe(torch.rand(8, 3), labels, torch.rand(8, 3), torch.zeros(8).long(), k=k)


@pytest.mark.parametrize("distance", DISTANCES)
def test_without_faiss_the_neighbours_are_the_same(problem, distance, monkeypatch):
    queries, bank, _ = problem
    expected = nearest_neighbours(queries, bank, 7, distance)
    monkeypatch.setattr(knn.importlib.util, "find_spec", lambda name: None)
    assert torch.equal(nearest_neighbours(queries, bank, 7, distance), expected)
