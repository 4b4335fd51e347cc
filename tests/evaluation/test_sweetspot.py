import math

import numpy as np
import pytest

from hf_infomax.evaluation import SweepPoint, fit_reverse_u, plot_sweet_spot
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture

NATS = [2.0, 2.6, 3.1, 4.0, 4.7]


def parabola(nats):
    return [0.7 - 0.08 * (x - 3.25) ** 2 for x in nats]


def test_the_vertex_of_an_exact_parabola_is_found():
    fit = fit_reverse_u(NATS, parabola(NATS), spread=[0.001] * 5)
    assert fit.seen
    assert fit.peak == pytest.approx(3.25)
    assert fit.best == 2
    assert fit.coefficients == pytest.approx((-0.08, 0.52, 0.7 - 0.08 * 3.25**2))
    assert fit(3.25) == pytest.approx(0.7)


def test_the_order_of_the_points_does_not_matter():
    order = [3, 0, 4, 2, 1]
    shuffled = fit_reverse_u([NATS[i] for i in order], [parabola(NATS)[i] for i in order])
    assert shuffled.seen
    assert order[shuffled.best] == 2
    assert shuffled.peak == pytest.approx(3.25)


@pytest.mark.parametrize(
    ("accuracy", "why_not"),
    [
        ([0.3, 0.4, 0.5, 0.6, 0.7], "the best is at the end of most information"),
        ([0.7, 0.68, 0.6, 0.5, 0.4], "the best is at the end of least information"),
        ([0.60, 0.5, 0.4, 0.5, 0.61], "the best is at the end of most information"),
        (
            [0.60, 0.61, 0.62, 0.61, 0.5],
            "the best is not above the end of least information by more than chance moves it",
        ),
        ([0.1, 0.3, 0.5, 0.62, 0.61], "the best is not above the end of most information by more than chance moves it"),
    ],
)
def test_what_is_no_reverse_u_is_not_called_one(accuracy, why_not):
    fit = fit_reverse_u(NATS, accuracy, spread=[0.02] * 5)
    assert not fit.seen
    assert fit.why_not == why_not


def test_one_high_value_among_low_ones_is_not_enough_for_a_parabola_that_opens_upwards():
    fit = fit_reverse_u([1.0, 2.0, 3.0, 4.0, 5.0], [0.60, 0.64, 0.30, 0.30, 0.61])
    assert fit.why_not == "the parabola opens upwards"
    assert fit.peak is None


def test_the_peak_must_lie_within_what_was_measured():
    nats, accuracy = [0.0, 9.0, 9.5, 9.75, 10.0], [0.0, 0.9, 1.0, 0.99, 0.985]
    fit = fit_reverse_u(nats, accuracy)
    assert fit.peak > 10
    assert fit.why_not == "the parabola's peak is outside of what was measured"


def test_two_points_have_a_best_and_no_parabola():
    fit = fit_reverse_u([1.0, 2.0], [0.5, 0.4])
    assert (fit.best, fit.seen, fit.peak) == (0, False, None)
    assert math.isnan(fit.coefficients[0])


@pytest.mark.parametrize("wrong", [([1.0, 2.0], [0.5]), ([], []), ([1.0, math.nan], [0.5, 0.6])])
def test_points_that_are_none_are_refused(wrong):
    with pytest.raises(UsageError, match=r"lists of one length|NaN or infinite"):
        fit_reverse_u(*wrong)


def points(accuracy):
    return [SweepPoint(f"{i}", x, y, 0.05, 0.01) for i, (x, y) in enumerate(zip(NATS, accuracy, strict=True))]


def test_the_picture_names_every_dot_and_the_sweet_spot(tmp_path, drawn):
    measured = points(parabola(NATS))
    fit = fit_reverse_u(NATS, parabola(NATS), [0.01] * 5)
    path = plot_sweet_spot(measured, fit, tmp_path / "f.png", "c", untrained=0.4, title="Crops")
    (panel,) = drawn
    assert panel["texts"] == ["the parabola's peak, 3.25 nats", "untrained", "0", "1", "sweet spot, c = 2", "3", "4"]
    curve = next((x, y) for label, x, y in panel["lines"] if label == "reverse-U")
    assert max(curve[1]) == pytest.approx(70, abs=0.01)
    assert np.allclose([curve[0][0], curve[0][-1]], [2.0, 4.7])
    assert_is_a_picture(path)


def test_without_a_reverse_u_no_parabola_is_drawn(tmp_path, drawn):
    rising = [0.3, 0.4, 0.5, 0.6, 0.7]
    path = plot_sweet_spot(points(rising), fit_reverse_u(NATS, rising), tmp_path / "f.png", "", ordered=False)
    (panel,) = drawn
    assert panel["texts"] == ["0", "1", "2", "3", "best, 4"]
    assert "reverse-U" not in [label for label, _, _ in panel["lines"]]
    assert_is_a_picture(path)


def test_nothing_is_not_drawn(tmp_path):
    with pytest.raises(UsageError, match="the sweep has no points"):
        plot_sweet_spot([], fit_reverse_u([1.0], [0.5]), tmp_path / "f.png", "c")
