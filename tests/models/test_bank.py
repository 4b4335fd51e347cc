import pytest
import torch
from torch.nn import functional as F

from hf_infomax.models import bank as bank_module
from hf_infomax.models.bank import MemoryBank
from hf_infomax.models.errors import UsageError

N, D = 50, 8


@pytest.fixture(params=["float32", "bfloat16"])
def bank(request):
    return MemoryBank(N, D, dtype=request.param)


class Dictionary:
    """A memory bank as the papers describe it: sample -> vector, one at a time, in double precision."""

    def __init__(self, bank):
        self.rows = {index: bank.lookup(torch.tensor([index]))[0].double() for index in range(N)}
        self.dtype = bank.rows.dtype

    def update(self, index, vectors, momentum):
        for sample, vector in zip(index.tolist(), vectors.double(), strict=True):
            new = momentum * self.rows[sample] + (1 - momentum) * vector / vector.norm()
            self.rows[sample] = (new / new.norm()).to(self.dtype).double()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_it_does_what_a_dictionary_does(bank, momentum):
    bank.momentum = momentum
    naive = Dictionary(bank)
    tolerance = 1e-6 if bank.rows.dtype == torch.float32 else 2**-8  # a rounding may fall to either side
    for _ in range(20):
        index, vectors = torch.randperm(N)[:7], 3 * torch.randn(7, D)
        bank.update(index, vectors)
        naive.update(index, vectors, momentum)
        candidates, queries = torch.randint(N, (7, 12)), torch.randn(7, D)
        expected = torch.stack(
            [
                torch.stack([queries[i].double() @ naive.rows[j] for j in row.tolist()])
                for i, row in enumerate(candidates)
            ]
        )
        torch.testing.assert_close(bank.scores(queries, candidates).double(), expected, rtol=0, atol=10 * tolerance)
        shared = bank.scores(queries, candidates[0])
        together = torch.stack([queries.double() @ naive.rows[j] for j in candidates[0].tolist()], dim=1)
        torch.testing.assert_close(shared.double(), together, rtol=0, atol=10 * tolerance)


def test_the_rows_are_unit_vectors_from_the_first_step(bank):
    ones = torch.ones(N)
    tolerance = 1e-5 if bank.rows.dtype == torch.float32 else 1e-2
    torch.testing.assert_close(bank.lookup(torch.arange(N)).norm(dim=1), ones, rtol=0, atol=tolerance)
    bank.update(torch.arange(0, N, 2), 100 * torch.randn(N // 2, D))
    torch.testing.assert_close(bank.lookup(torch.arange(N)).norm(dim=1), ones, rtol=0, atol=tolerance)


@pytest.mark.parametrize("chunk", [D, 5 * D, 30 * D, 10_000])
def test_scores_and_gradients_do_not_depend_on_the_pieces(bank, chunk, monkeypatch):
    monkeypatch.setitem(bank_module._CHUNK, "cpu", chunk)
    queries = torch.randn(6, D, requires_grad=True)
    candidates, weights = torch.randint(N, (6, 13)), torch.randn(6, 13)
    scores = bank.scores(queries, candidates)
    (scores * weights).sum().backward()
    twin = queries.detach().clone().requires_grad_()
    expected = torch.einsum("bd,bkd->bk", twin, bank.rows.float()[candidates])
    (expected * weights).sum().backward()
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(queries.grad, twin.grad)


def test_a_missing_view_has_no_row_until_it_is_seen(bank):
    index, present = torch.tensor([3, 4, 5]), torch.tensor([True, False, True])
    before = bank.lookup(torch.tensor([4]))
    bank.update(index, torch.randn(3, D), present)
    scores = bank.scores(torch.randn(2, D), index)
    assert scores.isneginf().tolist() == [[False, True, False]] * 2
    assert torch.equal(bank.lookup(torch.tensor([4])), before)
    vector = torch.randn(1, D)
    bank.update(torch.tensor([4]), vector)  # the first time it is set, whatever the momentum
    torch.testing.assert_close(bank.lookup(torch.tensor([4])), F.normalize(vector, dim=1), rtol=0, atol=1e-2)
    assert bank.scores(torch.randn(2, D), index).isfinite().all()


@pytest.mark.parametrize("k", [1, 10, 36])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_the_nearest_are_what_sorting_finds(bank, k, pooled, whole):
    pool = torch.randperm(N)[:40] if pooled else None
    searched = set(pool.tolist()) if pooled else set(range(N))
    if not whole:
        bank.update(torch.arange(0, N, 4), torch.randn(13, D), torch.zeros(13, dtype=torch.bool))
        searched -= set(range(0, N, 4))
    queries, excluded = torch.randn(8, D), torch.randint(N, (8,))  # some are not searched in any case
    products = queries.to(bank.rows.dtype).double() @ bank.rows.double().T
    for exclude in (None, excluded):
        scores, samples = bank.nearest(queries, k, exclude, pool)
        assert scores.shape == samples.shape == (8, k)
        for i in range(8):
            allowed = torch.tensor(sorted(searched - ({int(excluded[i])} if exclude is not None else set())))
            expected = products[i, allowed].sort(descending=True).values[:k]
            found = scores[i].isfinite()
            assert found.sum() == len(expected) == min(k, len(allowed))
            names = samples[i, found]
            assert len(set(names.tolist())) == len(names)
            assert set(names.tolist()) <= set(allowed.tolist())
            tolerance = 1e-5 if bank.rows.dtype == torch.float32 else 2**-5  # of products of a few units
            torch.testing.assert_close(products[i, names], scores[i, found].double(), rtol=0, atol=tolerance)
            torch.testing.assert_close(
                scores[i, found].double().sort(descending=True).values, expected, rtol=0, atol=tolerance
            )


def test_where_no_sample_has_a_row_nothing_is_near(bank):
    bank.invalidate()
    scores, samples = bank.nearest(torch.randn(3, D), 5, torch.arange(3))
    assert scores.isneginf().all()
    assert samples.shape == (3, 5)


def test_of_a_sample_that_comes_twice_the_last_counts(bank):
    vectors = torch.randn(4, D)
    bank.update(torch.tensor([8, 3, 8, 5]), vectors, torch.tensor([True, True, True, False]), momentum=0.0)
    expected = F.normalize(vectors[[2, 1]], dim=1)
    torch.testing.assert_close(bank.lookup(torch.tensor([8, 3])), expected, rtol=0, atol=1e-2)
    assert not bank.valid[5]


def test_scores_are_float32_under_autocast(bank):
    queries, candidates = torch.randn(3, D), torch.randint(N, (3, 4))
    for drawn in (candidates, candidates[0]):
        exact = bank.scores(queries, drawn)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(bank.scores(queries, drawn), exact)


@pytest.mark.parametrize("wrong", [-1, N])
def test_a_sample_outside_is_named(bank, wrong):
    with pytest.raises(
        UsageError, match=rf"sample_index {wrong} is outside the memory bank of 50 samples: .* from 0 on"
    ):
        bank.update(torch.tensor([0, wrong]), torch.randn(2, D))


def test_an_unknown_type_is_named():
    with pytest.raises(UsageError, match="Unknown bank_dtype 'int8': choose one of float32, bfloat16"):
        MemoryBank(N, D, dtype="int8")


def test_it_comes_back_as_it_was_saved(bank, tmp_path):
    bank.update(torch.arange(9), torch.randn(9, D), torch.arange(9) != 2)
    bank.save(tmp_path / "bank" / "rows.safetensors")
    other = MemoryBank(N, D, dtype=str(bank.rows.dtype).removeprefix("torch."), seed=5)
    assert not torch.equal(other.rows, bank.rows)
    other.load([tmp_path / "bank" / "rows.safetensors"])
    assert torch.equal(other.rows, bank.rows)
    assert torch.equal(other.valid, bank.valid)
    assert not other.whole


def test_a_bank_of_other_data_is_refused(bank, tmp_path):
    bank.save(tmp_path / "rows.safetensors")
    with pytest.raises(
        UsageError, match="of 50 samples in 8 dimensions, and the run has 60 in 8: resume with the data"
    ):
        MemoryBank(60, D).load([tmp_path / "rows.safetensors"])
