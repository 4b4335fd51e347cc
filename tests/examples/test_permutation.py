import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

from hf_infomax.models.bounds import infonce

_spec = importlib.util.spec_from_file_location("permutation", Path(__file__).parents[2] / "examples" / "permutation.py")
permutation = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(permutation)

ITEMS, OWN = 12, 2


@pytest.fixture(scope="module")
def trained():
    """Width of the view sets -> (view sets, a trained table)."""
    sets = {reach: permutation.view_sets(ITEMS, OWN, reach) for reach in (1, 2, 5, ITEMS * OWN)}
    return {reach: (views, permutation.train_tables(views, seeds=1, steps=150)[0]) for reach, views in sets.items()}


def test_view_sets_begin_with_the_datum_and_wrap_around():
    views = permutation.view_sets(4, 2, 3)
    assert views.shape == (4, 8)
    assert views[3].nonzero().flatten().tolist() == [0, 6, 7]
    assert torch.equal(views.sum(dim=1), torch.ones(4, dtype=torch.double))


@pytest.mark.parametrize("reach", [2, 5])
def test_the_loss_is_that_of_a_loop_over_data_and_pairs_of_views(reach):
    views = permutation.view_sets(5, 2, reach)
    table = torch.randn(10, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    unit = table / table.norm(dim=1, keepdim=True)
    sets = [[(2 * datum + offset) % 10 for offset in range(reach)] for datum in range(5)]
    everything = [view for some in sets for view in some]
    bound = 0.0
    for views_of_one in sets:
        for view in views_of_one:
            scores = [(unit[view] @ unit[other]).item() / permutation.TEMPERATURE for other in everything]
            log_mean = math.log(sum(math.exp(score) for score in scores) / len(scores))
            own = [(unit[view] @ unit[other]).item() / permutation.TEMPERATURE for other in views_of_one]
            bound += (sum(own) / reach - log_mean) / (5 * reach)
    assert permutation.infonce_loss(table, views).item() == pytest.approx(-bound)


def test_the_loss_is_the_limit_of_infonce_for_many_negatives(trained):
    views, table = trained[5]
    generator = torch.Generator().manual_seed(0)
    pairs = torch.stack([row.multinomial(1200, replacement=True, generator=generator) for row in views])
    anchors, positives, negatives = (part.flatten() for part in pairs.split([100, 100, 1000], dim=1))
    scores = table @ table.T / permutation.TEMPERATURE
    bound = infonce(scores[anchors, positives], scores[anchors][:, negatives])
    assert -permutation.infonce_loss(table, views).item() == pytest.approx(bound.item(), abs=0.1)


def test_the_bound_stays_below_the_information_and_reaches_it_where_views_are_disjoint(trained):
    assert permutation.view_information(trained[2][0]) == pytest.approx(math.log(ITEMS))
    for views, table in trained.values():
        information = permutation.view_information(views)
        bound = -permutation.infonce_loss(table, views).item()
        assert information - 0.2 < bound < information + 1e-6


def test_a_permuted_table_says_of_one_datum_what_the_table_says_of_another():
    table = torch.arange(6.0)[:, None]  # three data of two cells
    moved = permutation.permuted(table, torch.tensor([[1, 2, 0], [0, 2, 1]]))
    assert moved[0].flatten().tolist() == [4, 5, 0, 1, 2, 3]  # what datum 0 had is now datum 1's
    assert moved[1].flatten().tolist() == [0, 1, 4, 5, 2, 3]


@pytest.mark.parametrize("reach", [1, 2, ITEMS * OWN])
def test_the_loss_is_blind_to_permutations_where_views_are_disjoint_or_all_shared(trained, reach):
    views, table = trained[reach]
    changes = permutation.rises(table, views, permutation.random_permutations(ITEMS, 50))
    assert changes.abs().max() < 1e-9


def test_where_views_collide_random_permutations_cost_and_rotations_do_not(trained):
    views, table = trained[5]
    assert permutation.rises(table, views, permutation.random_permutations(ITEMS, 50)).min() > 0.1
    assert permutation.rises(table, views, permutation.rotations(ITEMS)).abs().max() < 1e-9


def test_only_symmetries_of_the_collisions_leave_the_loss_alone(monkeypatch):
    monkeypatch.setattr(permutation, "RING", 5)
    for reach, symmetries in {1: 120, 2: 10, 3: 10, 4: 120, 5: 120}.items():
        found = permutation.try_all_permutations(reach, seeds=1, steps=300)
        assert (found["symmetries"], found["unchanged"], found["lower"]) == (symmetries, [symmetries], [0])


def test_neighbours_share_the_label_that_collides():
    views = permutation.view_sets(permutation.ITEMS, permutation.OWN, 6)
    data = permutation.train_tables(views, seeds=1, steps=150)[0, :: permutation.OWN]
    arc, fourth = permutation.LABELS.values()
    assert permutation.neighbour_accuracy(data, arc) > 0.7
    assert permutation.neighbour_accuracy(data, fourth) < 0.1


def test_the_example_writes_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr(permutation, "REACHES", (2, 8))
    monkeypatch.setattr(permutation, "RING", 4)
    assert (
        permutation.main(["--out", str(tmp_path / "out"), "--seeds", "2", "--steps", "3", "--permutations", "4"]) == 0
    )
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [ring["reach"] for ring in results["rings"]] == [2, 8]
    assert abs(results["rings"][0]["random"]["greatest"]) < 1e-9
    assert len(results["rings"][1]["accuracy"]["every fourth"]) == 2
    assert [each["reach"] for each in results["all permutations"]] == [1, 2, 3, 4]
