import json
import math

import pytest

import compare
from compare import answer, slug
from hf_infomax.evaluation import Row

COMPARISON = """
recipe: dim_colour_digits_cpu
overrides: [eval.every=0]
seeds: [0, 1]
runs:
  InfoNCE: {}
  JSD: {overrides: [model.bound=jsd]}
  "CMC {L, ab}": {recipe: cmc_colour_digits_cpu}
  one seed: {overrides: [model.bound=dv], seeds: [1]}
baselines: [InfoNCE]
evaluation:
  {layers: [conv, y], train_images: 100, eval_images: 60, targets: [label], probes: [knn], measures: [infonce],
   options: {infonce: {images: 60}}, cache: false}
questions:
  - [InfoNCE, JSD]
paper: [{table: Table 9, probe: knn20, values: {JSD: 81.4, "never run": 70.1}}]
"""


@pytest.fixture
def comparison(tmp_path, monkeypatch, tiny):
    (tmp_path / "tiny.yaml").write_text(COMPARISON)
    monkeypatch.setattr(compare, "COMPARISONS", tmp_path)
    monkeypatch.setattr(compare, "CARDS", tmp_path / "cards")
    monkeypatch.chdir(tmp_path)
    overrides = [override for override in tiny("train.max_steps=2") if not override.startswith("output_dir")]
    # CMC has no critic units; what both accept is the encoder's size
    return ["tiny", *overrides]


def test_a_comparison_measures_every_run_and_continues_where_it_stopped(comparison, tmp_path, monkeypatch, capsys):
    trained = []
    train = compare.train

    def count(recipe):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(recipe.output_dir)
        return train(recipe)

    with monkeypatch.context() as patch:
        patch.setattr(compare, "train", count)
        assert compare.main(comparison) == 130
    monkeypatch.setattr(compare, "train", lambda recipe: trained.append(recipe.output_dir) or train(recipe))
    assert compare.main(comparison) == 0
    assert len(trained) == len(set(trained)) == 7

    results = json.loads((tmp_path / "cards" / "tiny" / "results.json").read_text())
    models = {row["model"] for row in results["rows"]}
    assert models == {"InfoNCE", "InfoNCE, untrained", "raw pixels", "JSD", "CMC {L, ab}", "one seed"}
    both = [row for row in results["rows"] if row["model"] != "one seed"]
    assert all(row["seeds"] == [0, 1] and row["std"] is not None for row in both)
    assert {tuple(row["seeds"]) for row in results["rows"] if row["model"] == "one seed"} == {(1,)}
    shared = [row for row in results["rows"] if row["probe"] == "infonce"]  # only CMC has two views
    assert [(row["model"], row["target"], row["value"] <= math.log(60)) for row in shared] == [
        ("CMC {L, ab}", "the other view", True)
    ]
    assert (tmp_path / "cards" / "tiny" / "information.png").stat().st_size > 5_000
    assert (tmp_path / "cards" / "tiny" / "comparison.png").stat().st_size > 10_000
    table = (tmp_path / "cards" / "tiny" / "table.md").read_text()
    assert "InfoNCE against JSD" in table
    (jsd,) = (row for row in results["rows"] if (row["model"], row["layer"]) == ("JSD", "y"))
    assert f"| JSD | {100 * jsd['value']:.1f} ± {100 * jsd['std']:.1f} | 81.4 |" in table
    assert table.endswith("| never run | - | 70.1 |\n")


def row(model, value, std):
    return Row(model, "conv", "knn20", "label", "set", "test", "accuracy", value, std, (0, 1))


def test_overlapping_spreads_are_undecided():
    apart = [row("a", 0.60, 0.01), row("b", 0.50, 0.02)]
    assert "**a**" in answer(apart, "a", "b", "knn20", "conv")
    assert "**a**" in answer(apart, "b", "a", "knn20", "conv")
    overlapping = [row("a", 0.60, 0.06), row("b", 0.50, 0.05)]
    assert "undecided" in answer(overlapping, "a", "b", "knn20", "conv")
    assert "60.0 ± 6.0 against 50.0 ± 5.0" in answer(overlapping, "a", "b", "knn20", "conv")
    single = [row("a", 0.60, None), row("b", 0.50, 0.01)]
    assert answer(single, "a", "b", "knn20", "conv").endswith("| 60.0 against 50.0 ± 1.0 | undecided (one seed) |")


def test_a_jump_is_what_an_epoch_adds_to_the_moves_within(tmp_path):
    losses = [5.0, 4.9, 4.8, 7.7, 7.6, 7.5, 10.4, 10.3, 10.2]  # -0.1 a record, and 3 more at the end of an epoch
    records = [{"step": 1 + i, "epoch": (1 + i) / 3, "loss": loss} for i, loss in enumerate(losses)]
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join(map(json.dumps, [*records, {"step": 9, "epoch": 3.0, "knn": {}}]))
    )
    assert compare.epoch_jump(tmp_path) == pytest.approx(3.0)
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, records[:3])))
    assert compare.epoch_jump(tmp_path) is None


def test_slug():
    assert slug("CMC {L, ab}") == "cmc-l-ab"
    assert slug("CMC-BALL+") == "cmc-ball-plus"


def test_runs_that_would_share_a_folder_are_refused(comparison, tmp_path, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(file.read_text().replace("  JSD:", "  infonce!:"))
    assert compare.main(comparison) == 2
    assert "'InfoNCE' and 'infonce!' of tiny.yaml would share a folder" in capsys.readouterr().err


def test_unknown_comparison_lists_the_known_ones(capsys):
    assert compare.main(["cifar"]) == 2
    assert "cifar10_cpu" in capsys.readouterr().err
