import pytest
import torch

from hf_infomax.evaluation import (
    LabelledImages,
    evaluate_features,
    evaluate_models,
    knn_accuracy,
    linear_probe,
    linear_regression_probe,
    linear_regression_probes,
    mlp_probe,
)
from hf_infomax.models.errors import UsageError
from tests.evaluation.forked import meet, needs_fork, run_two


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


def test_seeds_make_a_mean_and_a_spread_where_chance_has_a_part(features):
    train, test, train_targets, test_targets = features
    options = {"mlp": {"epochs": 2, "average": 1, "progress": False}}
    given = ({"y": train}, {"y": test}, train_targets, test_targets, "m", "set", "test")
    rows = evaluate_features(*given, probes=["knn", "mlp"], seeds=(3, 4), options=options)
    found = {row.probe: row for row in rows}
    labels = train_targets["label"], test_targets["label"]
    alone = [mlp_probe(train, labels[0], test, labels[1], seed=seed, **options["mlp"]).value for seed in (3, 4)]
    assert found["mlp"].value == pytest.approx(sum(alone) / 2)
    assert (found["mlp"].seeds, found["knn20"].seeds) == ((3, 4), (3,))
    assert found["mlp"].std == pytest.approx(abs(alone[0] - alone[1]) / 2**0.5)
    assert found["knn20"].std is None


def test_an_unknown_measure_is_refused(model, pixels):
    images = LabelledImages(pixels, {"label": torch.arange(10) % 2})
    with pytest.raises(UsageError, match="Unknown measure 'mi'"):
        list(evaluate_models({"a": model}, images, images, "set", "test", probes=[], measures=["mi"]))


@pytest.mark.parametrize(
    ("labels", "broken", "sentence"),
    [
        (torch.zeros(30, dtype=torch.long), False, "single class"),
        (torch.arange(30) % 2, True, "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("probe", ["linear", "svm", "mlp", "sgd"])
def test_what_cannot_be_asked_is_one_sentence(probe, labels, broken, sentence):
    x = torch.randn(30, 4)
    x[3, 1] = torch.nan if broken else 0
    with pytest.raises(UsageError, match=sentence):
        evaluate_features({"y": x}, {"y": x}, {"label": labels}, {"label": labels}, "m", "set", "test", probes=[probe])


def test_fewer_images_than_voters_is_one_sentence():
    x, y = torch.randn(12, 4), {"label": torch.arange(12) % 2}
    with pytest.raises(UsageError, match="k = 20 neighbours cannot come from a bank of 12"):
        evaluate_features({"y": x}, {"y": x}, y, y, "m", "set", "test", probes=["knn"])


def asked_by_one_of_two(rank, given, folder):
    """What one of two processes has in the end."""
    meet(rank, folder)
    torch.save([vars(row) for row in evaluate_models(**given)], folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@needs_fork
def test_two_processes_share_the_questions_and_both_have_the_answers(model, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    images = LabelledImages(pixels.repeat(4, 1, 1, 1), {"label": torch.arange(40) % 2, "size": torch.rand(40, 1)})
    given = {"models": {"a": model, "pixels": None}, "train": images, "test": images, "dataset": "set", "split": "test"}
    given |= {"layers": ["wide", "y"], "k": 3, "measures": ["label_free", "few_labels"]}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as they have, for the last bit
    alone = [vars(row) for row in evaluate_models(**given)]
    run_two(asked_by_one_of_two, given, tmp_path)
    torch.set_num_threads(threads)
    assert alone == torch.load(tmp_path / "0.pt") == torch.load(tmp_path / "1.pt")
