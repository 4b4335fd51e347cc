import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_infomax.evaluation import Row, ablation, write_results
from hf_infomax.evaluation.ablation import AblationPoint, Measure, measures_of, plot_ablation, read_ablation
from hf_infomax.evaluation.label_curves import few_labels_probe
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture

ACCURACY = Measure("y", "linear", "accuracy")


def row(value, probe="linear", metric="accuracy", layer="y", model="trained", std=None, split="test"):
    return Row(model, layer, probe, "label", "set", split, metric, value, std)


def save(folder, rows, seed=0, model_type="infomax_dim", **weights):
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": model_type, **weights}))
    if rows:
        write_results(folder / "results.json", {"recipe": {"train": {"seed": seed}}}, rows)


def point(alpha, beta, gamma, *rows):
    return AblationPoint(alpha, beta, gamma, rows)


def test_runs_become_points_and_their_seeds_a_spread(tmp_path, caplog):
    save(tmp_path / "a" / "0", [row(0.5), row(0.2, model="random init")], seed=0, alpha=0.5, beta=1.0, gamma=0.0)
    save(tmp_path / "a" / "1", [row(0.6), row(0.2, model="random init")], seed=1, alpha=0.5, beta=1, gamma=0)
    save(tmp_path / "b", [row(0.7, std=0.03)], alpha=1.0)  # beta and gamma as DIM's own
    save(tmp_path / "cmc", [row(0.9)], model_type="infomax_cmc")
    save(tmp_path / "unfinished", [], alpha=1.0)
    first, second = read_ablation(tmp_path)
    assert (first.alpha, first.beta, first.gamma) == (0.5, 1.0, 0.0)
    trained = first.rows[0]
    assert (trained.value, trained.std, trained.seeds) == (pytest.approx(0.55), pytest.approx(0.0707, abs=1e-4), (0, 1))
    assert first.rows[1].model == "random init"
    assert (second.alpha, second.beta, second.gamma) == (1.0, 1.0, 0.1)
    assert second.rows[0].std == 0.03
    assert "2 of 5 runs" in caplog.text


def test_runs_that_differ_in_something_else_are_not_averaged(tmp_path):
    for name in ("infonce", "jsd"):
        save(tmp_path / name, [row(0.5)], seed=0, bound=name)
    with pytest.raises(UsageError, match="repeat a seed"):
        read_ablation(tmp_path)


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(UsageError, match="has a DIM model"):
        read_ablation(tmp_path)


def test_a_damaged_configuration_is_named(tmp_path):
    save(tmp_path / "run", [row(0.5)])
    (tmp_path / "run" / "model" / "config.json").write_text('{"alpha":')
    with pytest.raises(UsageError, match=r"config.json is not a model's configuration"):
        read_ablation(tmp_path)


def test_other_results_can_be_read(tmp_path):
    save(tmp_path / "run", [row(0.5)])
    write_results(tmp_path / "run" / "evaluation.json", {"seed": 4}, [row(0.6)])
    (found,) = read_ablation(tmp_path, "evaluation.json")
    assert (found.rows[0].value, found.rows[0].seeds) == (0.6, (4,))


def test_without_a_choice_the_last_layer_of_the_trained_model_is_drawn():
    rows = [
        row(0.1, split="train[90%:]"),
        row(0.5, layer="conv"),
        row(0.6),
        row(4.0, "mine", "nats"),
        row(0.3, few_labels_probe(1)),
    ]
    rows += [row(0.2, model="random init"), row(0.2, layer="pixels", model="raw pixels")]
    assert ACCURACY.read(point(0, 1, 0, *rows)) == 60  # not what the training's own monitor saw
    assert measures_of([point(0, 1, 0, *rows), point(1, 0, 0, *rows)]) == [ACCURACY, Measure("y", "mine", "nats")]


def test_every_value_stands_at_its_point_and_the_colours_agree(tmp_path, drawn):
    points = [
        point(alpha, beta, gamma, row(0.1 * (1 + alpha + 2 * beta + 4 * gamma)), row(alpha, "loss", "loss"))
        for alpha in (0, 0.5)
        for beta in (0, 1)
        for gamma in (0, 1)
    ]
    path = plot_ablation(points, tmp_path / "a.png", [ACCURACY, Measure("y", "loss", "loss")])
    assert len(drawn) == 4  # two gammas, two measures
    np.testing.assert_allclose(drawn[0]["images"][0], [[10, 15], [30, 35]])  # lines are betas, columns alphas
    assert drawn[0]["texts"] == ["10.0", "15.0", "30.0", "35.0"]
    assert [panel["title"].split("\n")[-1] for panel in drawn] == ["γ = 0", "γ = 0", "γ = 1", "γ = 1"]
    assert_is_a_picture(path)


@pytest.mark.parametrize(("metric", "best"), [("accuracy", "40.0"), ("error", "10.0")])
def test_the_best_is_ringed(metric, best):
    axes = Figure().subplots()
    ablation._draw_map(axes, np.array([[10.0, 20.0], [np.nan, 40.0]]), 10.0, 40.0, Measure("y", "linear", metric))
    assert [text.get_text() for text in axes.texts] == ["10.0", "20.0", "40.0"]
    assert [text.get_text() for text in axes.texts if text.get_bbox_patch() is not None] == [best]
    assert axes.images[0].get_interpolation() == "nearest"  # nothing to interpolate where a point is missing


def test_the_darker_is_the_better():
    for metric, darker in (("accuracy", 1), ("error", 0)):
        axes = Figure().subplots()
        ablation._draw_map(axes, np.array([[10.0, 40.0]]), 10.0, 40.0, Measure("y", "linear", metric))
        image = axes.images[0]
        assert image.get_interpolation() == "bilinear"
        lightness = image.cmap(image.norm(image.get_array()))[0, :, :3].sum(axis=1)
        assert lightness.argmin() == darker


def test_a_measure_that_no_run_has_is_named(tmp_path):
    with pytest.raises(UsageError, match="no run has mine, nats, y"):
        plot_ablation([point(0, 1, 0, row(0.5))], tmp_path / "a.png", [Measure("y", "mine", "nats")])
    with pytest.raises(UsageError, match="no points"):
        plot_ablation([], tmp_path / "a.png")
    with pytest.raises(UsageError, match="no measures"):
        plot_ablation([point(0, 1, 0)], tmp_path / "a.png")
