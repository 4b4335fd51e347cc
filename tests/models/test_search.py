import pytest
import torch
from torch.nn import functional as F

from hf_infomax.models import search
from hf_infomax.models.search import nearest

D = 8


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request):
    return getattr(torch, request.param)


@pytest.fixture
def small(monkeypatch):
    """Everything that is done to large searches, done to small ones: chunks of queries, blocks of rows, groups."""
    for name, size in {"_ROWS": 64, "_QUERIES": 7, "_NEAR": 2**11}.items():
        monkeypatch.setattr(search, name, size)
    monkeypatch.setitem(search._SCORES, "cpu", 2**12)


@pytest.fixture
def looks(monkeypatch):
    """How many queries `topk` was shown all scores of."""
    counts = []

    def counted(queries, *others):
        counts.append(len(queries))
        return original(queries, *others)

    original = search._from_all
    monkeypatch.setattr(search, "_from_all", counted)
    return counts


def integers(*size, dtype=torch.float32):
    """Vectors whose dot products are exact in any type, and many of them equal."""
    return torch.randint(-2, 3, size).to(dtype)


def check(queries, rows, k, exclude=None, tolerance=0.0):
    """Against sorting all of a query's scores, up to the order of equal ones."""
    scores, places = nearest(queries, rows, k, exclude)
    assert scores.dtype == torch.float32
    assert places.dtype == torch.int64
    assert scores.shape == places.shape == (len(queries), k)
    for i, query in enumerate(queries):
        naive = rows.double() @ query.double()
        if exclude is not None and exclude[i] >= 0:
            naive[exclude[i]] = -torch.inf
        expected = naive.sort(descending=True).values[:k]
        assert len(set(places[i].tolist())) == k
        torch.testing.assert_close(scores[i].double().sort(descending=True).values, expected, rtol=0, atol=tolerance)
        torch.testing.assert_close(naive[places[i]], scores[i].double(), rtol=0, atol=tolerance)


SIZES = [(5, 1), (63, 5), (64, 5), (65, 10), (127, 20), (128, 1), (129, 21), (1000, 7), (1000, 160), (1001, 400)]


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_it_finds_what_sorting_finds(n, k, dtype, small):
    check(integers(20, D), integers(n, D, dtype=dtype), k)
    check(integers(20, D), integers(n, D, dtype=dtype), k, torch.randint(-1, n, (20,)))


@pytest.mark.parametrize("k", [3, 100, 1000])
def test_unit_vectors_of_a_few_clusters(k, dtype, small, looks):
    centres = torch.randn(10, D)
    rows = F.normalize(centres[torch.randint(10, (3000,))] + 0.3 * torch.randn(3000, D), dim=1).to(dtype)
    check(rows[:20].float(), rows, k, torch.arange(20), tolerance=1e-6 if dtype == torch.float32 else 2**-8)
    assert (looks == []) == (k < 1000)  # which is too many to guess for


@pytest.mark.parametrize("k", [2, 100])
def test_rows_of_every_block_are_found(k, small):
    rows = torch.zeros(1000, D)
    edges = [0, 127, 128, 255, 256, 511, 512, 895, 896, 999]
    rows[edges, 0] = torch.arange(1.0, 11.0)
    scores, places = nearest(torch.eye(D)[:1], rows, 10)
    assert dict(zip(places[0].tolist(), scores[0].tolist(), strict=True)) == dict(zip(edges, range(1, 11), strict=True))
    rows += torch.arange(1000).unsqueeze(1) / 2000
    check(torch.eye(D), rows, k)


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("turned", [1, -1])
def test_the_order_of_the_rows_does_not_matter(k, turned, small, looks):
    rows = turned * torch.linspace(-1, 1, 700).unsqueeze(1) * torch.ones(D)
    check(torch.ones(9, D), rows, k, tolerance=1e-5)
    assert looks == []


@pytest.mark.parametrize("k", [2, 60])
@pytest.mark.parametrize("floor", [-torch.inf, torch.inf])
def test_a_poor_guess_costs_time_alone(k, floor, small, looks, monkeypatch):
    guess = search._guess
    monkeypatch.setattr(search, "_guess", lambda *given: (torch.full((len(given[0]), 1), floor), guess(*given)[1]))
    check(integers(20, D), integers(700, D), k, torch.randint(-1, 700, (20,)))
    assert looks == [7, 7, 6]


@pytest.mark.parametrize("k", [1, 7, 100, 699, 700])
def test_all_scores_are_equal(k, dtype, small):
    check(torch.ones(8, D), torch.ones(700, D, dtype=dtype), k)
    check(torch.zeros(8, D), integers(700, D, dtype=dtype), k)


@pytest.mark.parametrize("n", [1, 9, 100])
def test_where_too_few_are_left_the_score_says_so(n, small):
    exclude = torch.tensor([0, -1, n - 1, -1])
    scores, places = nearest(integers(4, D), integers(n, D), n, exclude)
    assert scores.isneginf().sum(dim=1).tolist() == [1, 0, 1, 0]
    assert torch.equal(places.sort(dim=1).values, torch.arange(n).expand(4, n))


def test_the_real_sizes_are_sifted(dtype, looks):
    rows = integers(9001, D, dtype=dtype)
    for k in (1, 50, 1000):
        check(integers(3, D), rows, k, torch.tensor([-1, 5, 9000]))
    assert looks == []


def test_it_finds_the_same_again(dtype, small):
    queries, rows = integers(20, D), integers(1000, D, dtype=dtype)
    first, again = nearest(queries, rows, 30), nearest(queries, rows, 30)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_no_queries():
    for n in (10, 9000):
        scores, places = nearest(torch.zeros(0, D), torch.zeros(n, D), 5)
        assert scores.shape == places.shape == (0, 5)


def test_the_products_are_of_the_rows_type_under_autocast():
    queries, rows = torch.randn(4, D), torch.randn(9000, D)
    for some in (rows, rows[:50]):
        exact = nearest(queries, some, 5)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(nearest(queries, some, 5)[0], exact)
