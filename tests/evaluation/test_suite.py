import datasets
import pytest
import torch

from hf_infomax.evaluation import (
    LabelledImages,
    evaluate_features,
    evaluate_models,
    knn_accuracy,
    labelled_images,
    linear_probe,
    linear_regression_probe,
    linear_regression_probes,
    target_names,
)
from hf_infomax.models.errors import UsageError


@pytest.fixture
def features():
    x = torch.randn(140, 6)
    labels = (x[:, 0] > 0).long()
    factors = torch.stack([x[:, 1] * 2 + 1, x[:, 2] + 0.5 * torch.randn(140)], dim=1)
    return (
        x[:100],
        x[100:],
        {"label": labels[:100], "where": factors[:100]},
        {"label": labels[100:], "where": factors[100:]},
    )


def test_the_digits_can_be_asked_for_their_class_and_every_factor(digits):
    assert target_names(digits) == ["label", "x", "y", "size", "foreground", "background"]


def test_columns_that_are_no_targets_are_not_asked_for():
    rows = {"text": ["a", "b"], "group": [0, 1], "weight": [0.5, 1.0]}
    types = {
        "text": datasets.Value("string"),
        "group": datasets.ClassLabel(num_classes=2),
        "weight": datasets.Value("float32"),
    }
    assert target_names(datasets.Dataset.from_dict(rows, features=datasets.Features(types))) == ["group", "weight"]


def test_targets_are_read_and_joined(digits):
    few = digits.select(range(20))
    images = labelled_images(few, 32, ["label", "foreground", "x+y"])
    assert images.pixels.shape == (20, 3, 32, 32)
    assert images.targets["label"].tolist() == few["label"][:]
    torch.testing.assert_close(images.targets["foreground"], torch.tensor(few["foreground"][:]))
    torch.testing.assert_close(images.targets["x+y"], torch.tensor([few["x"][:], few["y"][:]]).T)
    with pytest.raises(UsageError, match="'colour'"):
        labelled_images(few, 32, ["colour"])


def test_rows_are_the_probes_own_numbers(features):
    train, test, train_targets, test_targets = features
    rows = list(evaluate_features({"y": train}, {"y": test}, train_targets, test_targets, "m", "set", "test", k=5))
    found = {(row.probe, row.target, row.metric): row.value for row in rows}
    labels, where = train_targets["label"], train_targets["where"]
    assert found == {
        ("knn5", "label", "accuracy"): knn_accuracy(test, test_targets["label"], train, labels, k=5),
        ("linear", "label", "accuracy"): linear_probe(train, labels, test, test_targets["label"]).value,
        ("linear", "where", "r2"): pytest.approx(
            linear_regression_probe(train, where, test, test_targets["where"]).value
        ),
    }


def test_probe_images_bound_the_linear_probes_alone(features):
    train, test, train_targets, test_targets = features
    first = {name: values[:40] for name, values in train_targets.items()}

    def values(x, targets, **options):
        rows = evaluate_features({"y": x}, {"y": test}, targets, test_targets, "m", "set", "test", k=5, **options)
        return {(row.probe, row.target): row.value for row in rows}

    bounded, few, whole = (
        values(train, train_targets, probe_images=40),
        values(train[:40], first),
        values(train, train_targets),
    )
    assert bounded[("knn5", "label")] == whole[("knn5", "label")]
    assert bounded[("linear", "label")] == few[("linear", "label")]
    assert bounded[("linear", "where")] == pytest.approx(few[("linear", "where")])


def test_several_factors_at_once_equal_one_at_a_time(features):
    train, test, train_targets, test_targets = features
    train_factors = {str(index): train_targets["where"][:, index] for index in range(2)} | {
        "both": train_targets["where"]
    }
    test_factors = {str(index): test_targets["where"][:, index] for index in range(2)} | {"both": test_targets["where"]}
    together = linear_regression_probes(train, train_factors, test, test_factors)
    for name, result in together.items():
        alone = linear_regression_probe(train, train_factors[name], test, test_factors[name])
        assert result.value == pytest.approx(alone.value, abs=1e-5)
        assert result.strength == alone.strength


def test_models_stand_beside_raw_pixels(model, pixels):
    images = LabelledImages(pixels.repeat(3, 1, 1, 1), {"label": torch.arange(30) % 2})
    rows = list(
        evaluate_models({"a": model, "pixels": None}, images, images, "set", "test", ["y"], probes=["knn"], k=1)
    )
    assert [(row.model, row.layer) for row in rows] == [("a", "y"), ("pixels", "pixels")]
    assert rows[1].value == 1.0  # each image finds itself


def test_a_dataset_without_targets_and_an_unknown_probe_are_refused(model, pixels):
    empty = LabelledImages(pixels, {})
    with pytest.raises(UsageError, match="targets"):
        list(evaluate_models({"a": model}, empty, empty, "set", "test"))
    x = torch.randn(10, 2)
    with pytest.raises(UsageError, match="Unknown probe 'tree'"):
        list(evaluate_features({"y": x}, {"y": x}, {}, {}, "m", "set", "test", probes=["tree"]))
