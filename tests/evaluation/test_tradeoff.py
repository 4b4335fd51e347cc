import pytest

from hf_infomax.evaluation import Row, plot_tradeoff
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture


def row(model, metric, value, std=None):
    return Row(model, "y", "probe", "label", "set", "test", metric, value, std)


def test_a_named_dot_for_each_model_that_has_both(tmp_path, drawn):
    nats = [row("{L, ab}", "nats", 3.2, 0.1), row("{R, GB}", "nats", 6.5), row("alone", "nats", 1.0)]
    known = [row("{R, GB}", "accuracy", 0.4), row("{L, ab}", "accuracy", 0.6, 0.01)]
    path = plot_tradeoff(nats, known, tmp_path / "t.png", "InfoNCE (nats)", "accuracy (%)", "Less is more")
    (panel,) = drawn
    assert (panel["x"], panel["y"]) == ("InfoNCE (nats)", "accuracy (%)")
    assert panel["texts"] == ["{L, ab}", "{R, GB}"]
    dots = [(x[0], y[0]) for _, x, y in panel["lines"] if len(x) == 1]
    assert (3.2, pytest.approx(60.0)) in dots
    assert (6.5, pytest.approx(40.0)) in dots
    assert_is_a_picture(path)


def test_nothing_in_common_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no model has both measures"):
        plot_tradeoff([row("a", "nats", 1.0)], [row("b", "accuracy", 0.5)], tmp_path / "t.png", "x", "y")
