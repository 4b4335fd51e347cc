import random

import pytest

from hf_infomax import UsageError
from plateau import agreed_drops, count_drops, last_layer_accuracies
from recipe import TrainRecipe


def naive_drops(accuracies, patience, max_drops):
    """Looks back, after each measurement, over the last `patience` of them."""
    drops, after_drop = 0, 0
    for end in range(1, len(accuracies) + 1):
        start = end - patience
        if start >= max(after_drop, 1) and max(accuracies[start:end]) <= max(accuracies[:start]) and drops < max_drops:
            drops, after_drop = drops + 1, end
    return drops


def test_drops_against_a_naive_loop():
    draw, found = random.Random(0), set()
    for _ in range(500):
        accuracies = [draw.randint(0, 5 + place // 3) / 20 for place in range(draw.randint(0, 30))]  # rising, with ties
        patience, max_drops = draw.randint(1, 6), draw.randint(0, 3)
        found.add(drops := count_drops(accuracies, patience, max_drops))
        assert drops == naive_drops(accuracies, patience, max_drops)
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("accuracies", "drops"),
    [
        ([], 0),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 0),
        ([0.5, 0.5, 0.5], 0),
        ([0.5, 0.5, 0.5, 0.5], 1),  # a tie is no improvement
        ([0.5, 0.4, 0.4, 0.51, 0.4, 0.4], 0),  # an improvement is in time
        ([0.5, 0.4, 0.4, 0.4, 0.51, 0.4, 0.4], 1),
        ([0.5, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5], 2),  # a drop does not forget the best
        ([0.5] * 100, 2),
    ],
)
def test_three_measurements_without_improvement_are_a_drop(accuracies, drops):
    assert count_drops(accuracies, patience=3, max_drops=2) == drops


def test_the_last_layer_counts_once_for_each_measured_step():
    history = [
        {"step": 3, "loss": 1.0},
        {"step": 3, "knn": {"conv": 0.9, "y": 0.2}},
        {"step": 3, "knn": {"conv": 0.9, "y": 0.2}},
        {"step": 6, "knn": {"conv": 0.9, "y": 0.2}},
    ]
    assert last_layer_accuracies(history) == [0.2, 0.2]


KNN = [{"step": step, "knn": {"y": 0.5}} for step in range(4)]


def test_every_process_has_the_drops_of_the_one_that_measures(monkeypatch):
    train = TrainRecipe(schedule="plateau", patience=2)
    sent = []
    monkeypatch.setattr("plateau.broadcast_object_list", lambda drops: sent.append(*drops) or drops)
    assert agreed_drops(train, KNN) == 1
    assert sent == [1]
    monkeypatch.setattr("plateau.broadcast_object_list", lambda drops: sent)
    assert agreed_drops(train, []) == 1


def test_other_schedules_never_drop():
    assert agreed_drops(TrainRecipe(schedule="cosine", patience=1), KNN) == 0


def test_a_patience_of_nothing_is_refused():
    with pytest.raises(UsageError, match=r"^train\.patience=0 waits for no measurement: set it to 1 or more\.$"):
        agreed_drops(TrainRecipe(schedule="plateau", patience=0), [])
