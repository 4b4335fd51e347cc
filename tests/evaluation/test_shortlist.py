"""The shortlist: what it finds is what a search in float32 finds, also where the list cannot be trusted."""

import pytest
import torch
from torch.nn import functional as F

from hf_infomax.evaluation import shortlist
from hf_infomax.evaluation.shortlist import ERROR, nearest_by_cosine


def by_sorting(queries, bank, k):
    similarity = F.normalize(queries).double() @ F.normalize(bank).double().T
    return similarity.sort(dim=1, descending=True).values[:, :k]


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_it_finds_what_a_sort_finds(k, draw):
    queries, bank = torch.randn(70, 24, generator=draw), torch.randn(900, 24, generator=draw) * 5
    found, places = nearest_by_cosine(queries, bank, k, half=True)
    torch.testing.assert_close(found.sort(dim=1, descending=True).values, by_sorting(queries, bank, k).float())
    assert all(len(set(row)) == k for row in places.tolist())
    torch.testing.assert_close(found, (F.normalize(queries)[:, None] * F.normalize(bank)[places]).sum(2))


def test_neighbours_that_bfloat16_cannot_tell_apart_are_found(draw, monkeypatch):
    """A crowd within a thousandth: more of them than the list holds."""
    bank = torch.cat(
        [torch.ones(400, 16) + 1e-3 * torch.randn(400, 16, generator=draw), torch.randn(600, 16, generator=draw)]
    )
    queries = torch.ones(8, 16) + 1e-3 * torch.randn(8, 16, generator=draw)
    searched, search = [], shortlist.nearest
    monkeypatch.setattr(
        shortlist, "nearest", lambda q, rows, k: searched.append((len(q), rows.dtype)) or search(q, rows, k)
    )
    found, _ = nearest_by_cosine(queries, bank, 5, half=True)
    torch.testing.assert_close(found.sort(dim=1, descending=True).values, by_sorting(queries, bank, 5).float())
    assert searched == [(8, torch.bfloat16), (8, torch.float32)]


def test_products_in_bfloat16_are_as_near_as_the_bound_says(draw):
    x, y = (F.normalize(torch.randn(400, 256, generator=draw)) for _ in range(2))
    y[:200] = x[:200]  # products near 1 as well
    rough = (x.bfloat16() @ y.bfloat16().T).float()
    assert (rough - x @ y.T).abs().max() <= ERROR


def test_a_small_bank_needs_no_list(draw, monkeypatch):
    queries, bank = torch.randn(4, 8, generator=draw), torch.randn(40, 8, generator=draw)
    monkeypatch.setattr(shortlist, "multiplies_bfloat16", lambda _: True)
    found, _ = nearest_by_cosine(queries, bank, 3)
    torch.testing.assert_close(found.sort(dim=1, descending=True).values, by_sorting(queries, bank, 3).float())
