"""Measures: each row is its function's own number, and a question without sense gives no row."""

import pytest
import torch

from hf_infomax import CMCConfig, CMCModel
from hf_infomax.evaluation import (
    MEASURES,
    Subject,
    extract_features,
    few_labels_curve,
    mine,
    neural_dependency,
    reconstruction,
    representation_health,
    view_information,
)

QUICK = {"steps": 3, "runs": 2, "batch_size": 8, "hidden": 4, "progress": False}
OPTIONS = {
    "mine": QUICK,
    "ndm": QUICK,
    "ms_ssim": {"epochs": 1, "width": 2, "progress": False},
    "few_labels": {"counts": (1, 2), "seeds": (0, 1)},
    "finetune": {"layer": "y", "epochs": 1, "average": 1, "batch_size": 8, "progress": False},
    "infonce": {"images": 10},
}


@pytest.fixture
def subject(model, pixels):
    many = pixels.repeat(3, 1, 1, 1)
    features = extract_features(model, many, ["wide", "y"], progress=False)
    labels = {"label": torch.arange(30) % 3}
    return Subject("m", model, features, features, labels, labels, "set", "test", (0, 1), OPTIONS, many, many)


def rows_of(measure, subject):
    return [(row.layer, row.probe, row.target, row.metric, row.value, row.seeds) for row in MEASURES[measure](subject)]


def test_estimators_have_the_spread_of_their_runs(subject):
    pixels, y = subject.train_pixels, subject.train["y"]
    found = mine(pixels, y, seed=0, **QUICK)
    (row,) = MEASURES["mine"](subject)
    assert (row.layer, row.target, row.metric, row.value, row.std) == ("y", "input", "nats", found.mean, found.std)
    assert row.seeds == (0, 1)  # its runs
    assert rows_of("ndm", subject) == [
        ("y", "ndm", target, "nats of dependence", neural_dependency(y, sigmoid=sigmoid, seed=0, **QUICK).mean, (0, 1))
        for target, sigmoid in (("units behind a sigmoid", True), ("units", False))
    ]


def test_a_decoder_is_trained_for_each_seed(subject):
    y, pixels = subject.train["y"], subject.train_pixels
    found = [reconstruction(y, pixels, y, pixels, seed=seed, **OPTIONS["ms_ssim"]) for seed in (0, 1)]
    assert rows_of("ms_ssim", subject) == [
        ("y", "decoder", "input", name, pytest.approx(sum(getattr(one, name) for one in found) / 2), (0, 1))
        for name in ("ms_ssim", "mse")
    ]


def test_few_labels_are_asked_at_every_layer(subject):
    expected = []
    for layer in ("wide", "y"):
        x, labels = subject.train[layer], subject.train_targets["label"]
        one, two = few_labels_curve(x, labels, x, labels, **OPTIONS["few_labels"])
        expected.append((layer, "linear, 1 label per class", "label", "accuracy", one.value, (0, 1)))
        expected.append((layer, "linear, 2 labels per class", "label", "accuracy", two.value, (0, 1)))
    assert rows_of("few_labels", subject) == expected


def test_the_health_is_that_of_the_last_layer(subject):
    health = representation_health(subject.model, subject.test_pixels, "y", progress=False)
    found = {metric: value for *_, metric, value, _ in rows_of("label_free", subject)}
    assert found == pytest.approx(health.values(), abs=1e-5)


def test_fine_tuning_leaves_the_model_as_it_is(subject):
    before = [parameter.clone() for parameter in subject.model.parameters()]
    (row,) = MEASURES["finetune"](subject)
    assert (row.layer, row.probe, row.metric, row.seeds) == ("y", "fine-tuned", "accuracy", (0, 1))
    assert all(torch.equal(old, new) for old, new in zip(before, subject.model.parameters(), strict=True))


def test_views_share_information_where_there_are_several(subject):
    assert rows_of("infonce", subject) == []
    small = {"backbone_kwargs": {"channels": [8, 8, 8], "hidden_sizes": [8]}, "representation_size": 4}
    model = CMCModel(CMCConfig(**small))
    pixels = torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8)
    features = extract_features(model, pixels, ["y"], progress=False)
    images = {"train_pixels": pixels, "test_pixels": pixels}
    two = Subject("m", model, features, features, {}, {}, "set", "test", options=OPTIONS, **images)
    (expected,) = view_information(model, pixels, pixels, images=10).values()
    assert rows_of("infonce", two) == [("y", "infonce", "the other view", "nats", expected, (0,))]


@pytest.mark.parametrize("measure", ["label_free", "mine", "ndm", "ms_ssim", "finetune", "infonce"])
def test_raw_pixels_are_not_asked_for_what_only_a_model_has(measure):
    x = {"pixels": torch.rand(10, 12)}
    assert rows_of(measure, Subject("raw pixels", None, x, x, {}, {}, "set", "test")) == []


def test_without_classes_there_are_no_few_labels(subject):
    sizes = {"size": torch.rand(30, 1)}
    assert rows_of("few_labels", Subject("m", None, subject.train, subject.test, sizes, sizes, "set", "test")) == []
