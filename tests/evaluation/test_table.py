import json
import math
import os
from dataclasses import replace

import pytest

from hf_infomax.evaluation import Row, format_markdown, format_table, read_results, summarise, tabulate, write_results
from hf_infomax.models.errors import UsageError


def row(value=0.5, **fields):
    defaults = {
        "model": "DIM(L)",
        "layer": "conv",
        "probe": "knn",
        "target": "label",
        "dataset": "digits",
        "split": "test",
        "metric": "accuracy",
    }
    return Row(**(defaults | fields), value=value)


def test_rows_come_back_as_they_were_saved(tmp_path):
    rows = [row(0.25), row(0.75, layer="y", std=0.01, seeds=(0, 1, 2)), row(0.5, model="CMC (Läb)")]
    written = write_results(tmp_path / "new" / "results.json", {"seconds": 3}, rows)
    assert read_results(tmp_path / "new" / "results.json") == written == ({"seconds": 3}, rows)


def test_the_file_has_the_documented_fields(tmp_path):
    write_results(tmp_path / "results.json", {"seconds": 3}, [row()])
    content = json.loads((tmp_path / "results.json").read_text())
    assert set(content) == {"run", "rows"}
    fields = ["model", "layer", "probe", "target", "dataset", "split", "metric", "value", "std", "seeds"]
    assert list(content["rows"][0]) == fields


def test_only_rows_of_the_same_key_are_replaced(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, {"seconds": 3, "hardware": "cpu"}, [row(0.1), row(0.2, layer="fc"), row(0.3, split="train")])
    merged = write_results(path, {"seconds": 4}, [row(0.9, std=0.1, seeds=(0, 1)), row(0.4, target="colour")])
    assert [entry.value for entry in merged.rows] == [0.9, 0.2, 0.3, 0.4]
    assert merged.run == {"seconds": 4, "hardware": "cpu"}
    assert read_results(path) == merged


@pytest.mark.parametrize("field", ["model", "layer", "probe", "target", "dataset", "split", "metric"])
def test_every_field_but_the_outcome_tells_rows_apart(field):
    assert replace(row(), **{field: "other"}).key != row().key
    assert replace(row(), value=1.0, std=0.1, seeds=(5,)).key == row().key


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    before = write_results(path, {}, [row(0.1)])

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_results(path, {}, [row(0.2)])
    assert read_results(path) == before
    assert os.listdir(tmp_path) == ["results.json"]


def test_nan_is_saved_as_json(tmp_path):
    write_results(tmp_path / "results.json", {}, [row(math.nan)])
    assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["value"] is None
    assert math.isnan(read_results(tmp_path / "results.json").rows[0].value)


@pytest.mark.parametrize("content", ["not json", "[]", '{"rows": 3}', '{"run": {}, "rows": [{"model": "DIM"}]}'])
def test_another_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="move"):
        write_results(path, {}, [row()])
    assert path.read_text() == content


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="no results at"):
        read_results(tmp_path / "results.json")


def test_seeds_are_summarised_by_mean_and_sample_deviation():
    rows = [row(value, seeds=(seed,)) for seed, value in enumerate((0.2, 0.4, 0.6))]
    mean, alone = summarise([*rows, row(0.9, layer="y", seeds=(7,))])
    assert (mean.value, mean.std, mean.seeds) == (pytest.approx(0.4), pytest.approx(0.2), (0, 1, 2))
    assert (alone.value, alone.std, alone.seeds) == (0.9, None, (7,))


def test_a_seed_counts_once():
    with pytest.raises(UsageError, match="repeat a seed"):
        summarise([row(0.2), row(0.4)])


@pytest.fixture
def rows():
    return [
        row(0.912, std=0.011, seeds=(0, 1)),
        row(0.5, layer="fc"),
        row(0.9124, model="pixels", layer="pixels"),
        row(0.8, probe="linear"),
        row(0.3, layer="fc", probe="linear", target="position", metric="r2"),
        row(0.2, probe="linear", target="position", metric="mse"),
        row(0.1, layer="fc", probe="linear", target="position", metric="mse"),
    ]


def test_a_line_for_each_layer_and_a_column_for_each_probe_and_target(rows):
    table = tabulate(rows)
    assert table.lines == [("DIM(L)", "conv"), ("DIM(L)", "fc"), ("pixels", "pixels")]
    assert table.headings == [
        ("knn", "label", "accuracy (%)"),
        ("linear", "label", "accuracy (%)"),
        ("linear", "position", "r2"),
        ("linear", "position", "mse"),
    ]
    assert table.text(0, 0) == "91.2 ± 1.1"
    assert table.text(1, 2) == "0.300"
    assert table.text(0, 2) == "-"
    assert table.values()[0][:2] == [pytest.approx(91.2), pytest.approx(80.0)]
    assert math.isnan(table.values()[0][2])


def test_the_best_are_those_that_read_the_same_and_the_least_of_an_error(rows):
    assert tabulate(rows).best == {(0, 0), (2, 0), (1, 3)}  # a column with one number has no best


def test_split_and_dataset_are_named_where_they_differ():
    headings = tabulate([row(), row(split="train")]).headings
    assert headings == [("knn", "label", "test", "accuracy (%)"), ("knn", "label", "train", "accuracy (%)")]


def test_plain_text_is_aligned(rows):
    lines = format_table(rows).splitlines()
    assert lines[0].split() == ["model", "layer", "knn", "linear", "linear", "linear"]
    assert lines[2].split() == ["accuracy", "(%)", "accuracy", "(%)", "r2", "mse"]
    assert lines[4].split() == ["DIM(L)", "conv", "91.2", "±", "1.1*", "80.0", "-", "0.200"]
    assert lines[5].split() == ["fc", "50.0", "-", "0.300", "0.100*"]  # the model is named once
    assert len({line.rstrip("* ").find(".200") for line in lines[4:5]} | {lines[5].find(".100")}) == 1
    assert max(map(len, lines)) == len(lines[3])


def test_markdown_is_bold_and_escaped(rows):
    lines = format_markdown([*rows, row(0.1, model="a|b")]).splitlines()
    assert lines[0].startswith("| Model | Layer | knn, label, accuracy (%) |")
    assert lines[1] == "|:---|:---|---:|---:|---:|---:|"
    assert lines[2] == "| DIM(L) | conv | **91.2 ± 1.1** | 80.0 | - | 0.200 |"
    assert lines[-1].startswith(r"| a\|b | conv | 10.0 |")


@pytest.mark.parametrize("layout", [format_table, format_markdown])
def test_no_rows_are_said_so(layout):
    assert layout([]) == "(no results)"
