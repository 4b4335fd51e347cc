import pytest

from hf_infomax.evaluation import Row
from hf_infomax.evaluation.label_curves import few_labels_probe
from hf_infomax.evaluation.layer_curves import plot_layers
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture


def row(model, layer, probe, value, std=0.01, target="label", metric="accuracy"):
    return Row(model, layer, probe, target, "set", "test", metric, value, std, (0, 1))


def test_a_panel_for_each_probe_and_a_line_through_the_layers_in_their_order(tmp_path, drawn):
    rows = [row("DIM", layer, "knn20", value) for layer, value in (("conv", 0.5), ("fc", 0.6), ("y", 0.4))]
    rows += [row("CMC", layer, "knn20", value) for layer, value in (("y", 0.3), ("conv", 0.7))]  # no fc, and reversed
    rows += [row("raw pixels", "pixels", "knn20", 0.2, None), row("DIM", "conv", "linear", 0.8)]
    rows += [row("DIM", "conv", "linear", 0.9, target="size", metric="r2"), row("DIM", "y", few_labels_probe(1), 0.1)]
    path = plot_layers(rows, tmp_path / "l.png")
    assert [(panel["title"], panel["y"]) for panel in drawn] == [
        ("knn20", "label, accuracy (%)"),
        ("linear", "label, accuracy (%)"),
    ]
    lines = {label: (x, y) for label, x, y in drawn[0]["lines"]}
    assert lines["DIM"][1] == pytest.approx([50, 60, 40])
    assert [round(x) for x in lines["CMC"][0]] == [0, 2]
    assert lines["CMC"][1] == pytest.approx([70, 30])
    assert lines["DIM"][0][0] != lines["CMC"][0][0]  # beside each other
    assert set(lines["raw pixels"][1]) == {20.0}
    assert_is_a_picture(path)


def test_another_target_has_its_own_metric_and_a_diverged_row_is_left_out(tmp_path, drawn):
    rows = [
        row("DIM", layer, "linear", value, None, "size", "r2") for layer, value in (("conv", 0.5), ("y", float("nan")))
    ]
    plot_layers(rows, tmp_path / "l.png", target="size")
    (panel,) = drawn
    assert panel["y"] == "size, r2"
    assert [list(y) for label, _, y in panel["lines"] if label == "DIM"] == [[0.5]]


def test_a_dozen_models_stay_within_their_layer(tmp_path, drawn):
    rows = [row(f"m{i}", layer, "knn", 0.1 + 0.05 * i) for i in range(12) for layer in ("a", "b")]
    assert_is_a_picture(plot_layers(rows, tmp_path / "l.png"))
    places = [x for label, x, _ in drawn[0]["lines"] if str(label).startswith("m")]
    assert len({place[0] for place in places}) == 12
    assert all(abs(place[0]) < 0.3 and abs(place[1] - 1) < 0.3 for place in places)


def test_an_unknown_target_is_named(tmp_path):
    with pytest.raises(UsageError, match="no row reads 'size' from a layer"):
        plot_layers([row("DIM", "conv", "knn", 0.5)], tmp_path / "l.png", target="size")
