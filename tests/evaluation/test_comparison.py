import pytest

from hf_infomax.evaluation import Row, plot_comparison
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture


def row(model, layer, probe, value, std):
    return Row(model, layer, probe, "label", "set", "test", "accuracy", value, std, (0, 1))


def test_a_dot_for_each_layer_and_model_in_a_panel_for_each_probe(tmp_path, drawn):
    rows = [row("DIM", "conv", "knn20", 0.5, 0.02), row("DIM", "y", "knn20", 0.4, 0.01)]
    rows += [row("CMC", "conv", "knn20", 0.6, None), row("DIM", "conv", "linear", 0.7, 0.03)]
    path = plot_comparison(rows, tmp_path / "c.png", "DIM against CMC")
    assert [(panel["title"], panel["x"]) for panel in drawn] == [("knn20", "accuracy (%)"), ("linear", "accuracy (%)")]
    dots = [(list(x), list(y)) for label, x, y in drawn[0]["lines"] if len(x) and not str(label).startswith("_child")]
    assert any(x == pytest.approx([50.0, 60.0]) for x, _ in dots)
    assert_is_a_picture(path)


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no rows"):
        plot_comparison([], tmp_path / "c.png")
