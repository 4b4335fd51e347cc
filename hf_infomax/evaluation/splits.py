"""Labelled features as every probe takes them: checked, standardised, split and dealt out in batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from .features import location_and_scale, require_finite


class Problem(NamedTuple):
    """A classification of standardised features, all on one device."""

    train: Tensor  #: (N, F)
    labels: Tensor  #: (N,) in 0 ... C - 1
    test: Tensor  #: (M, F)
    test_labels: Tensor  #: (M,), and -1 for a class that training has not
    classes: Tensor  #: (C,), the label that each number stands for

    def accuracy(self, predicted: Tensor) -> float:
        """Predicted numbers of classes (M,) -> the fraction that is right."""
        return accuracy(predicted, self.test_labels)


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """The fraction of equal entries, in [0, 1]."""
    return (predicted == labels.to(predicted.device)).double().mean().item()


def check_features(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, least: int = 10) -> None:
    """Refuse splits that no probe can use.

    Raises:
        UsageError: the shapes do not fit, a split is too small (under `least` for training), or features are not finite.
    """
    for split, x, y in (("training", train_x, train_y), ("test", test_x, test_y)):
        if x.dim() != 2 or len(x) != len(y):
            shapes = f"{tuple(x.shape)} and targets {tuple(y.shape)}"
            raise UsageError(
                f"The {split} split has features {shapes}: give (N, F) features and one target for each row."
            )
    if train_x.shape[1] != test_x.shape[1]:
        sizes = f"{train_x.shape[1]} and {test_x.shape[1]}"
        raise UsageError(f"Training and test features have {sizes} columns: take both from the same layer.")
    if len(train_x) < least or len(test_x) < 2:
        sizes = f"{len(train_x)} and {len(test_x)}"
        raise UsageError(f"A probe needs at least {least} training and 2 test samples, not {sizes}.")
    require_finite(train_x=train_x, test_x=test_x)


def number_classes(train_y: Tensor, test_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels of any integers -> numbers from 0 for training (N,), for test (M,) with -1 for the unknown, and the classes (C,).

    Raises:
        UsageError: the labels are not one integer for each sample, or training has a single class.

    >>> number_classes(torch.tensor([7, 3, 7]), torch.tensor([3, 4]))
    (tensor([1, 0, 1]), tensor([ 0, -1]), tensor([3, 7]))
    """
    for split, labels in (("training", train_y), ("test", test_y)):
        whole = not labels.is_complex() and bool((labels == labels.double().round()).all())
        if labels.dim() != 1 or not whole:
            raise UsageError(f"The {split} labels are not one integer for each sample: give classes as (N,) integers.")
    classes, numbers = train_y.unique(return_inverse=True)
    if len(classes) < 2:
        raise UsageError("The training labels hold a single class: a probe of classes needs at least two.")
    test_y = test_y.to(classes)
    found = torch.searchsorted(classes, test_y).clamp_(max=len(classes) - 1)
    return numbers, torch.where(classes[found] == test_y, found, -1), classes


def classification(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, least: int = 10) -> Problem:
    """What a probe of classes is given -> its `Problem`, on the device of `train_x`.

    Raises:
        UsageError: as `check_features` and `number_classes`.
    """
    check_features(train_x, train_y, test_x, test_y, least)
    device = train_x.device
    labels, test_labels, classes = number_classes(train_y.to(device), test_y.to(device))
    train, test = standardise(train_x, test_x.to(device))
    return Problem(train, labels, test, test_labels, classes)


def standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Zero mean and unit variance by the training split's statistics; a feature that is constant there becomes zero."""
    mean, scale = location_and_scale(train)
    return (train.float() - mean).mul_(scale), (test.float() - mean).mul_(scale)


def hold_out(samples: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A random tenth of the training split, at least two samples, to choose by, and the rest to fit on: (fit, held)."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed)).to(device)
    held = max(2, samples // 10)
    return order[held:], order[:held]


def shuffled_batches(samples: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """One epoch: the indices of all samples in a random order, `batch_size` at a time, a smaller rest last."""
    yield from torch.randperm(samples, device=device).split(batch_size)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from a seed inside, and the global state of before afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
