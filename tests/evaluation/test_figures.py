import matplotlib
import numpy as np
import pytest
import torch

from hf_infomax.evaluation import plot_heatmap, plot_knn, plot_loss_maps, plot_neighbours, plot_training
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture, images


def history(length, bound=True):
    return [
        {"step": 10 * index, "epoch": index / 4, "loss": -index, "bound": float(index) if bound else None}
        for index in range(length)
    ]


def test_training_has_a_panel_of_losses_and_one_of_bounds(tmp_path, drawn):
    path = plot_training(
        {"DIM": history(5), "CMC": history(9), "JSD": history(5, bound=False)}, tmp_path / "a" / "t.png"
    )
    assert [(panel["x"], panel["y"]) for panel in drawn] == [
        ("epochs", "loss (nats)"),
        ("epochs", "lower bound (nats)"),
    ]
    named = [[label for label, _, _ in panel["lines"] if not label.startswith("_")] for panel in drawn]
    assert named == [["DIM", "CMC", "JSD"], ["DIM", "CMC"]]
    assert_is_a_picture(path)


def test_training_without_a_bound_has_one_panel_and_counts_what_is_asked(tmp_path, drawn):
    path = plot_training({"JSD": history(5, bound=False)}, tmp_path / "t.png", x="step")
    assert [panel["x"] for panel in drawn] == ["optimizer steps"]
    assert_is_a_picture(path)


def test_a_long_noisy_history_is_smoothed_and_keeps_its_level(tmp_path, drawn):
    noisy = [{"epoch": e, "loss": 3.0 + (-1) ** e, "bound": None} for e in range(400)]
    plot_training({"DIM": noisy}, tmp_path / "t.png")
    raw, smooth = (y for _, _, y in drawn[0]["lines"][:2])
    assert np.ptp(raw) == 2
    assert np.abs(smooth - 3).max() < 0.3


def test_knn_has_a_panel_for_each_run_in_percent(tmp_path, drawn):
    runs = {"DIM": [{"epoch": 0, "step": 0, "conv": 0.1, "y": 0.2}, {"epoch": 1, "conv": 0.5, "y": 0.4}]}
    runs |= {name: [{"epoch": 0, "conv": 0.3}] for name in ("CMC", "IR", "LA")}
    path = plot_knn(runs, tmp_path / "k.png", target="digit", chance=0.1)
    assert [panel["title"] for panel in drawn] == ["DIM", "CMC", "IR", "LA"]
    assert [label for label, _, _ in drawn[0]["lines"]] == ["conv", "y", "chance"]
    assert drawn[0]["lines"][0][2] == pytest.approx([10.0, 50.0])
    assert drawn[0]["y"] == "kNN accuracy, digit (%)"
    assert_is_a_picture(path)


@pytest.mark.parametrize("runs", [1, 2, 3, 5])
def test_knn_lays_out_any_number_of_runs(tmp_path, drawn, runs):
    assert_is_a_picture(plot_knn({str(run): [{"epoch": 0, "conv": 0.1}] for run in range(runs)}, tmp_path / "k.png"))
    assert len(drawn) == runs


def test_heat_map_writes_every_number_and_scales_each_column(tmp_path, drawn):
    values = [[90.0, 0.5, 7.0], [50.0, 0.9, 7.0], [70.04, float("nan"), 7.0]]
    path = plot_heatmap(
        ["DIM, conv", "DIM, y", "pixels"], ["knn\n(%)", "r2", "equal"], values, tmp_path / "h.png", "Seen"
    )
    assert drawn[0]["texts"] == ["90.0", "0.500", "7.00", "50.0", "0.900", "7.00", "70.0", "-", "7.00"]
    shares = np.ma.filled(drawn[0]["images"][0], np.nan)
    np.testing.assert_allclose(shares, [[1, 0, 0.5], [0, 1, 0.5], [0.501, np.nan, 0.5]], atol=1e-6)
    assert_is_a_picture(path)


def test_a_column_without_numbers_is_drawn(tmp_path):
    assert_is_a_picture(
        plot_heatmap(["a", "b"], ["x", "y"], [[1, float("nan")], [2, float("nan")]], tmp_path / "h.png", "Seen")
    )


def test_no_global_state_is_left(tmp_path):
    before = dict(matplotlib.rcParams)
    plot_training({"DIM": history(5)}, tmp_path / "t.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda path: plot_training({"DIM": []}, path), "no records"),
        (lambda path: plot_training({"DIM": history(3)}, path, x="images"), "DIM does not count 'images'"),
        (lambda path: plot_knn({"DIM": [{"epoch": 1}]}, path), "no layer|hold no"),
        (lambda path: plot_neighbours(images(2), {"DIM": images(3, 4)}, path), "DIM has neighbours"),
        (lambda path: plot_neighbours(images(2), {}, path), "no model"),
        (lambda path: plot_loss_maps(images(2), torch.rand(3, 4, 4), path), "n = 2"),
        (lambda path: plot_heatmap(["a"], ["x", "y"], [[1.0]], path, "Seen"), "1 rows and 2 columns"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(tmp_path, draw, message):
    with pytest.raises(UsageError, match=message):
        draw(tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())
