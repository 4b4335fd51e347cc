import sys

import pytest
import torch
from torch.nn import functional as F

from hf_infomax.models.bank import MemoryBank
from hf_infomax.models.errors import UsageError
from hf_infomax.models.neighbors import Clusters, Nearest

N, D = 60, 8

pytest.importorskip("faiss")


@pytest.fixture
def bank():
    return MemoryBank(N, D)


@pytest.fixture
def clusters():
    return Clusters(num_clusters=7, num_clusterings=5, iterations=4)


def everyone():
    """All samples, each asked about all."""
    return torch.arange(N), torch.arange(N).expand(N, N)


def set_rows(bank, vectors):
    bank.update(torch.arange(len(vectors)), vectors, momentum=0.0)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_clusters_are_a_union_over_clusterings(bank, clusters, share):
    clusters.refresh(bank, 0)
    assert clusters.table.shape == (N, 5)
    close = clusters.among(*everyone(), share=share)
    for i in range(N):
        union = set()
        for h in range(round(share * 5)):
            union |= {j for j in range(N) if clusters.table[j, h] == clusters.table[i, h]}
        assert set(close[i].nonzero().flatten().tolist()) == union
        assert (i in union) == (share > 0)


def test_candidates_are_asked_about_in_any_order_and_number(bank, clusters):
    clusters.refresh(bank, 0)
    whole = clusters.among(*everyone())
    index, candidates = torch.tensor([5, 0, 5]), torch.randint(N, (3, 100))
    assert torch.equal(clusters.among(index, candidates), whole[index].gather(1, candidates))


def test_clusters_are_the_same_for_a_seed_and_an_epoch(bank):
    def found(epoch, seed=0):
        clusters = Clusters(num_clusters=7, num_clusterings=3, iterations=4, seed=seed)
        clusters.refresh(bank, epoch)
        return clusters.among(*everyone())

    assert torch.equal(found(1), found(1))
    assert not torch.equal(found(1), found(2))
    assert not torch.equal(found(1), found(1, seed=1))


def test_clusterings_differ(bank, clusters):
    clusters.refresh(bank, 0)
    sizes = [clusters.among(*everyone(), share=h / 5).sum() for h in range(1, 6)]
    assert sizes[0] < sizes[1] < sizes[4]


def test_clusters_recover_planted_ones():
    bank = MemoryBank(200, 16)
    centres, label = torch.eye(16)[:10], torch.randint(10, (200,))
    set_rows(bank, centres[label] + 0.03 * torch.randn(200, 16))
    clusters = Clusters(num_clusters=10, num_clusterings=8, iterations=10)
    clusters.refresh(bank, 0)
    close = clusters.among(torch.arange(200), torch.arange(200).expand(200, 200))
    same = label == label.unsqueeze(1)
    # One k-means may take two centres from one cluster and none from another; all of eight hardly split the same pair.
    assert (close & same).sum() / same.sum() > 0.99
    nearest = Nearest(num_neighbors=int(label.bincount().min()) - 1)
    nearest.refresh(bank, 0)
    assert not (nearest.among(torch.arange(200), torch.arange(200).expand(200, 200)) & ~same).any()


def test_the_nearest_are_what_sorting_finds(bank):
    nearest = Nearest(num_neighbors=8)
    nearest.refresh(bank, 0)
    scores = bank.rows @ bank.rows.T
    scores.fill_diagonal_(-torch.inf)
    order = scores.argsort(dim=1, descending=True)
    for share, count in ((0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)):
        close = nearest.among(*everyone(), share=share)
        naive = torch.zeros(N, N, dtype=torch.bool).scatter_(1, order[:, :count], True)
        assert torch.equal(close, naive)
    index, candidates = torch.tensor([5, 0, 5]), torch.randint(N, (3, 100))
    assert torch.equal(nearest.among(index, candidates), naive[index].gather(1, candidates))


@pytest.mark.parametrize("close", [Clusters(num_clusters=5, num_clusterings=3, iterations=3), Nearest(num_neighbors=9)])
def test_who_has_no_row_is_nobodys_neighbour(bank, close):
    known = torch.arange(N) % 3 > 0
    bank.invalidate()
    bank.update(torch.arange(N), torch.randn(N, D), known)
    close.refresh(bank, 0)
    found = close.among(*everyone())
    assert found[known][:, known].sum() > 0
    assert not found[known][:, ~known].any()


def test_who_has_no_row_is_in_no_cluster(bank, clusters):
    bank.invalidate()
    bank.update(torch.arange(20), torch.randn(20, D))
    clusters.refresh(bank, 0)
    found = clusters.among(*everyone())
    assert torch.equal(found[20:], torch.eye(N, dtype=torch.bool)[20:])
    assert found[:20, :20].sum() > 20


def test_fewer_rows_than_clusters(bank):
    bank.invalidate()
    bank.update(torch.arange(4), torch.randn(4, D))
    clusters = Clusters(num_clusters=7, num_clusterings=2)
    clusters.refresh(bank, 0)
    assert torch.equal(clusters.among(*everyone()), torch.eye(N, dtype=torch.bool))


@pytest.mark.parametrize(
    "make", [lambda: Clusters(num_clusters=7, num_clusterings=2), lambda: Nearest(num_neighbors=4)]
)
def test_they_come_back_as_they_were_saved(bank, make, tmp_path):
    close, other, never = make(), make(), make()
    close.refresh(bank, 0)
    close.save(tmp_path / "state" / "close.safetensors")
    other.load(tmp_path / "state" / "close.safetensors", torch.device("cpu"))
    assert torch.equal(other.table, close.table)
    assert torch.equal(other.among(*everyone()), close.among(*everyone()))
    never.save(tmp_path / "never.safetensors")
    other.load(tmp_path / "never.safetensors", torch.device("cpu"))
    assert other.table is None


@pytest.mark.parametrize("close", [Clusters(), Nearest()])
def test_they_are_found_before_they_are_asked_for(close):
    with pytest.raises(UsageError, match=r"have not been found yet: call state\.before_epoch before the first step\.$"):
        close.among(torch.arange(2), torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("count", [1, 61])
def test_wrong_numbers_of_clusters_are_named(count):
    with pytest.raises(UsageError, match=rf"^num_clusters={count} clusters .* of 60 samples: choose 2 to 60\.$"):
        Clusters(num_clusters=count).require(N)


@pytest.mark.parametrize("count", [0, 60])
def test_wrong_numbers_of_neighbours_are_named(count):
    with pytest.raises(UsageError, match=rf"^num_neighbors={count} close .* among 60 samples: choose 1 to 59\.$"):
        Nearest(num_neighbors=count).require(N)


def test_right_numbers_are_taken():
    for count in (2, 60):
        Clusters(num_clusters=count).require(N)
    for count in (1, 59):
        Nearest(num_neighbors=count).require(N)


def test_a_missing_faiss_is_named(bank, clusters, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r'pip install "hf-infomax\[train\]", or take close_neighbors=\'nearest\''):
        clusters.refresh(bank, 0)
    nearest = Nearest(num_neighbors=3)
    nearest.refresh(bank, 0)
    assert nearest.among(*everyone()).sum() == 3 * N


def test_faiss_says_nothing(bank, clusters, capfd):
    clusters.refresh(bank, 0)
    assert capfd.readouterr() == ("", "")


def test_vectors_of_any_length_are_neighbours_by_direction(bank):
    vectors = F.normalize(torch.randn(N, D), dim=1)
    set_rows(bank, vectors * torch.rand(N, 1).add(0.1))
    nearest = Nearest(num_neighbors=1)
    nearest.refresh(bank, 0)
    assert torch.equal(nearest.table[:, 0].long(), (vectors @ vectors.T).fill_diagonal_(-2).argmax(dim=1))
