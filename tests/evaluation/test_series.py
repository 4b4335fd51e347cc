import pytest
from matplotlib.figure import Figure

from hf_infomax.evaluation import Row, series


def test_no_two_of_28_series_are_alike():
    styles = [tuple(series.series_style(index).values()) for index in range(28)]
    assert len(set(styles)) == 28
    assert len({style[:2] for style in styles}) == 28  # by colour and dash alone


def test_pixels_have_a_style_that_no_model_has():
    pixels = series.row_style(Row("raw", "pixels", "knn", "label", "set", "test", "accuracy", 0.3), ["a"])
    model = series.row_style(Row("a", "y", "knn", "label", "set", "test", "accuracy", 0.3), ["a"])
    assert pixels["linestyle"] != model["linestyle"]
    assert "marker" not in pixels


@pytest.mark.parametrize(("metric", "expected"), [("accuracy", (50.0, 2.0)), ("r2", (0.5, 0.02))])
def test_an_outcome_is_in_the_unit_of_its_label(metric, expected):
    row = Row("a", "y", "knn", "size", "set", "test", metric, 0.5, 0.02)
    assert series.outcome(row) == expected
    assert ("%" in series.outcome_label(row)) == (metric == "accuracy")
    assert series.outcome(Row(*row.key, 0.5))[1] == 0.0


def test_the_legend_names_every_series_once_in_order_and_not_a_single_one():
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], label="a")
    series.legend_above(figure, [left, right])
    assert not figure.legends
    right.plot([0, 1], label="a")
    right.plot([1, 0], label="b")
    series.legend_above(figure, [left, right])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize("names", [3, 12, 28])
def test_a_legend_stays_inside_of_the_figure(names):
    figure = Figure(figsize=(9, 5), dpi=50, layout="constrained")
    axes = figure.subplots()
    for index in range(names):
        axes.plot([0, 1], label=f"a model of a long name {index}")
    series.legend_above(figure, [axes])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_a_grid_has_as_many_panels_as_asked_for():
    figure = Figure()
    assert len(series.panel_grid(figure, 5, 3)) == len(figure.axes) == 5
