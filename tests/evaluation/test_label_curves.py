import math

import pytest

from hf_infomax.evaluation import Row
from hf_infomax.evaluation.label_curves import few_labels_probe, is_few_labels, labels_per_class, plot_label_curves
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture


def row(model, layer, probe, value, std=0.01, target="label"):
    return Row(model, layer, probe, target, "set", "test", "accuracy", value, std, (0, 1))


def curve(model, layer, *values):
    probes = [few_labels_probe(1), few_labels_probe(10), few_labels_probe(100), "linear"]
    return [row(model, layer, probe, value) for probe, value in zip(probes, values, strict=True)]


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_a_name_gives_its_count_back(count):
    assert labels_per_class(few_labels_probe(count)) == count


@pytest.mark.parametrize("probe", ["knn20", "linear, ten labels per class", "svm, 10 labels per class", "linear, 10"])
def test_other_probes_have_no_count(probe):
    assert labels_per_class(probe) is None
    assert not is_few_labels(row("m", "y", probe, 0.5))


def test_all_labels_are_no_few_ones():
    assert labels_per_class("linear") == math.inf
    assert not is_few_labels(row("m", "y", "linear", 0.5))


def test_no_labels_are_refused():
    with pytest.raises(UsageError, match="0 labels per class"):
        few_labels_probe(0)


def test_a_panel_for_each_layer_and_a_curve_for_each_model(tmp_path, drawn):
    rows = curve("DIM", "conv", 0.2, 0.4, 0.5, 0.6)[::-1] + curve("DIM", "y", 0.1, 0.2, 0.3, 0.4)
    rows += curve("CMC", "conv", 0.3, 0.5, 0.6, 0.7)[:2] + curve("raw pixels", "pixels", 0.1, 0.15, 0.2, 0.3)
    rows += [row("LA", "conv", "linear", 0.9), row("DIM", "conv", "knn20", 0.9), row("DIM", "fc", "linear", 0.9)]
    path = plot_label_curves(rows, tmp_path / "c.png")
    assert [panel["title"] for panel in drawn] == ["conv", "y"]
    lines = {label: (list(x), list(y)) for label, x, y in drawn[0]["lines"]}
    assert set(lines) == {"DIM", "CMC", "raw pixels"}  # LA has one point and no curve
    assert lines["DIM"] == ([1, 10, 100, 1000], pytest.approx([20, 40, 50, 60]))
    assert lines["CMC"][0] == [1, 10]
    assert lines["raw pixels"][1] == pytest.approx([10, 15, 20, 30])
    assert_is_a_picture(path)


def test_without_all_labels_the_curve_ends_where_it_was_measured(tmp_path, drawn):
    plot_label_curves(curve("DIM", "conv", 0.2, 0.4, 0.5, 0.6)[:3], tmp_path / "c.png")
    assert list(drawn[0]["lines"][0][1]) == [1, 10, 100]


def test_pixels_alone_have_a_panel(tmp_path, drawn):
    plot_label_curves(curve("raw pixels", "pixels", 0.2, 0.4, 0.5, 0.6), tmp_path / "c.png")
    assert [panel["title"] for panel in drawn] == ["pixels"]


def test_a_target_is_chosen(tmp_path, drawn):
    other = [row("DIM", "conv", few_labels_probe(count), 0.9, target="shape") for count in (1, 10)]
    plot_label_curves(curve("DIM", "conv", 0.2, 0.4, 0.5, 0.6) + other, tmp_path / "c.png", target="shape")
    assert list(drawn[0]["lines"][0][2]) == pytest.approx([90, 90])
    with pytest.raises(UsageError, match="no row is of a few-label probe"):
        plot_label_curves([row("DIM", "conv", "linear", 0.5)], tmp_path / "c.png")
