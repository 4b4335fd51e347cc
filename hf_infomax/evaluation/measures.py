"""Measures: what is asked of a representation besides probes. A `Subject` -> rows, or none where the question has no sense."""

from collections.abc import Callable, Iterator
from typing import Any

from .few_labels import few_labels_curve
from .finetuning import finetune
from .information import view_information
from .label_curves import few_labels_probe
from .label_free import LABEL_FREE, representation_health
from .mine import mine
from .ndm import neural_dependency
from .reconstruction import reconstruction
from .subject import Subject
from .table import Row, summarise


def label_free(subject: Subject) -> Iterator[Row]:
    """Rank, alignment, uniformity and dead units of the global vector; see `representation_health`."""
    if subject.model is None:
        return
    given = subject.given("label_free")
    health = representation_health(
        subject.model,
        subject.test_pixels,
        subject.vector,
        features=subject.test[subject.vector],
        precision=subject.precision,
        progress=False,
        **given,
    )
    for name, value in health.values().items():
        yield subject.row(subject.vector, LABEL_FREE, "images", name, value, seeds=subject.seeds[:1])


def input_information(subject: Subject) -> Iterator[Row]:
    """MINE between the image and the global vector (Table 3); see `mine`."""
    if subject.model is not None:
        pixels, y = subject.train_pixels, subject.train[subject.vector]
        given = {"seed": subject.seeds[0], "device": subject.device} | subject.given("mine")
        found = mine(pixels, y, **given)
        yield subject.row(subject.vector, "mine", "input", "nats", found.mean, **_spread(found))


def dependence(subject: Subject) -> Iterator[Row]:
    """NDM of the global vector, behind a sigmoid and as it is (Table 3); see `neural_dependency`."""
    if subject.model is None:
        return
    for target, sigmoid in (("units behind a sigmoid", True), ("units", False)):
        y = subject.train[subject.vector]
        given = {"seed": subject.seeds[0], "device": subject.device} | subject.given("ndm")
        found = neural_dependency(y, sigmoid=sigmoid, **given)
        yield subject.row(subject.vector, "ndm", target, "nats of dependence", found.mean, **_spread(found))


def _spread(found: Any) -> dict[str, Any]:
    """The deviation over the runs of an estimator, and their numbers."""
    several = len(found.values) > 1
    return {"std": found.std if several else None, "seeds": tuple(range(len(found.values)))}


def decoded(subject: Subject) -> Iterator[Row]:
    """MS-SSIM of what a decoder gives back from the global vector (Table 3); see `reconstruction`."""
    if subject.model is None:
        return
    splits = (
        subject.train[subject.vector],
        subject.train_pixels,
        subject.test[subject.vector],
        subject.test_pixels,
    )
    rows = []
    for seed in subject.seeds:
        given = {"device": subject.device} | subject.given("ms_ssim")
        found = reconstruction(*splits, seed=seed, **given)
        rows += [
            subject.row(subject.vector, "decoder", "input", metric, getattr(found, metric), seeds=(seed,))
            for metric in ("ms_ssim", "mse")
        ]
    yield from summarise(rows)


def few_labels(subject: Subject) -> Iterator[Row]:
    """The linear probe with 1, 10 and 100 labels of each class, at every layer; see `few_labels_curve`."""
    if subject.classes is None:
        return
    train_y, test_y = subject.train_targets[subject.classes], subject.test_targets[subject.classes]
    for layer in subject.train:
        splits = [x.to(subject.device) for x in (subject.train[layer], train_y, subject.test[layer], test_y)]
        points = few_labels_curve(*splits, **subject.given("few_labels"))
        for point in points:
            probe = few_labels_probe(point.labels_per_class)
            yield subject.row(layer, probe, subject.classes, "accuracy", point.value, std=point.std, seeds=point.seeds)


def fine_tuned(subject: Subject) -> Iterator[Row]:
    """The whole encoder fine-tuned with labels (Table 2, SS); see `finetune`."""
    if subject.model is None or subject.classes is None:
        return
    given = {"layer": "conv", "precision": subject.precision} | subject.given("finetune")
    train_y, test_y = subject.train_targets[subject.classes], subject.test_targets[subject.classes]
    splits = subject.train_pixels, train_y, subject.test_pixels, test_y
    rows = []
    for seed in subject.seeds:
        found = finetune(subject.model, *splits, seed=seed, **given)
        rows.append(
            subject.row(given["layer"], "fine-tuned", subject.classes, found.metric, found.value, seeds=(seed,))
        )
    yield from summarise(rows)


def shared_information(subject: Subject) -> Iterator[Row]:
    """InfoNCE between the global vectors of each two views of an image, of a model of several; see `view_information`."""
    if len(getattr(subject.model, "feature_views", ())) < 2:
        return
    pixels = subject.train_pixels, subject.test_pixels
    found = view_information(subject.model, *pixels, **subject.given("infonce"))
    targets = found if len(found) > 1 else dict(zip(["the other view"], found.values(), strict=True))
    for target, value in targets.items():
        yield subject.row(subject.vector, "infonce", target, "nats", value, seeds=subject.seeds[:1])


#: Name -> measure.
MEASURES: dict[str, Callable[[Subject], Iterator[Row]]] = {
    "label_free": label_free,
    "few_labels": few_labels,
    "infonce": shared_information,
    "mine": input_information,
    "ndm": dependence,
    "ms_ssim": decoded,
    "finetune": fine_tuned,
}
