"""train.schedule=plateau: how often the periodic kNN has stopped improving, which is how often the learning rate drops.

The rule of Wu et al. 2020 (B.3): the rate falls to a tenth, twice at most, after ten epochs without a better nearest-neighbour
accuracy on held-out images. The drops are counted anew from the accuracies so far, which a resumed run reads again: there is no
scheduler's state.
"""

import math
from collections.abc import Iterable
from typing import Any

from accelerate.utils import broadcast_object_list

from hf_infomax import UsageError
from recipe import TrainRecipe


def count_drops(accuracies: Iterable[float], patience: int, max_drops: int) -> int:
    """How many times, `max_drops` at most, `patience` accuracies in a row did not exceed the best one before them; those that led
    to a drop do not lead to the next, and the best one outlasts it.

    >>> count_drops([0.3, 0.5, 0.5, 0.4, 0.5, 0.5], patience=2, max_drops=2)
    2
    """
    best, waited, drops = -math.inf, 0, 0
    for accuracy in accuracies:
        waited = 0 if accuracy > best else waited + 1
        best = max(best, accuracy)
        if waited == patience:
            waited, drops = 0, drops + 1
    return min(drops, max_drops)


def last_layer_accuracies(history: list[dict[str, Any]]) -> list[float]:
    """The accuracies of the last layer, the representation itself, one for each measured step.

    A run that was stopped right after an epoch measures that epoch's end, which `history` may have, again: it counts once.
    """
    measured = {record["step"]: record["knn"] for record in history if "knn" in record}
    return [list(accuracies.values())[-1] for accuracies in measured.values()]


def agreed_drops(train: TrainRecipe, history: list[dict[str, Any]]) -> int:
    """The number of drops after the measurements of `history`, which the main process alone has made; called by every process.

    Raises:
        UsageError: a patience of no measurement.
    """
    if train.schedule != "plateau":
        return 0
    if train.patience < 1:
        raise UsageError(f"train.patience={train.patience} waits for no measurement: set it to 1 or more.")
    drops = count_drops(last_layer_accuracies(history), train.patience, train.max_drops)
    return broadcast_object_list([drops])[0]
