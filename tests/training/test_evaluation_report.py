import re

import pytest
from PIL import Image

from evaluation_report import FIGURES, how_measured, summary, tables, write_page
from hf_infomax.evaluation import Row
from hf_infomax.evaluation.label_curves import few_labels_probe
from hf_infomax.models.errors import UsageError


def row(model, layer, probe, value, metric="accuracy", target="label", std=0.01):
    return Row(model, layer, probe, target, "data/cifar10", "test", metric, value, std, (0, 1, 2))


ROWS = [
    row("DIM(G)", "y", "linear", 0.512),
    row("DIM(L)", "conv", "linear", 0.712),
    row("DIM(L)", "y", "knn20", 0.634),
    row("DIM(L)", "conv", few_labels_probe(10), 0.99),  # no rival of the probes with all labels
    row("DIM(L)", "conv", "linear", 0.98, target="shape"),
    row("DIM(L)", "y", "mine", 4.321, "nats", "input"),
    row("DIM(L)", "y", "ndm", 1.234, "nats of dependence", "y"),
    row("DIM(L)", "y", "decoder", 0.45, "ms_ssim", "input"),
    row("DIM(L)", "y", "spectrum", 17.2, "rankme", "y"),
    row("random init", "conv", "linear", 0.421),
    row("random init", "y", "linear", 0.333),
    row("raw pixels", "pixels", "linear", 0.377),
    row("raw pixels", "pixels", "knn20", 0.301),
]


def test_the_summary_names_the_best_beside_what_learned_nothing():
    assert summary(ROWS) == (
        "Of 2 models, DIM(L) knows most of the label on cifar10 (test) at layer conv: linear reads it with an accuracy of "
        "71.2 ± 1.0 %, beside 42.1 ± 1.0 % with random init and 37.7 ± 1.0 % with raw pixels."
    )


def test_the_summary_says_no_number_that_is_not_in_the_rows():
    numbers = {f"{100 * row.value:.1f}" for row in ROWS} | {"1.0", "2", "10"}
    assert set(re.findall(r"\d+(?:\.\d+)?", summary(ROWS))) <= numbers


def test_a_baseline_is_never_the_best():
    rows = [row("DIM", "y", "linear", 0.2), row("random init", "y", "linear", 0.4)]
    assert summary(rows).startswith("DIM knows most of the label")
    assert "random init" not in summary(rows, baselines=("raw pixels",)).partition(" beside ")[2]
    assert summary(rows[1:]) == summary([]) == ""
    assert summary([row("DIM", "y", "mine", 3.0, "nats")]) == ""


def test_every_row_is_in_the_table_of_its_kind():
    found = {section.title: [row.probe for row in section.blocks[0].rows] for section in tables(ROWS)}
    assert [len(probes) for probes in found.values()] == [8, 1, 3, 1]
    assert found["With few labels"] == [few_labels_probe(10)]
    assert found["Without labels"] == ["spectrum"]
    assert list(tables([])) == []


def test_only_what_was_measured_is_explained():
    text = how_measured(ROWS)
    assert "cifar10 (test)" in text
    assert "data/" not in text
    assert "of which there are 3" in text
    assert all(name in text for name in ("kNN", "Linear", "MINE", "NDM"))
    assert not any(name in text for name in ("SVM", "MLP", "InfoNCE"))
    assert how_measured([]) == ""


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (40, 20), "teal").save(tmp_path / "figure.png")
    return tmp_path / "figure.png"


def test_the_page_holds_everything_in_order(tmp_path, picture):
    pictures = {"projection": picture, "layers": picture}
    settings = {"data": {"dataset": "cifar10"}, "seed": 3}
    warnings = ["Layer y of DIM(G) has collapsed."]
    page = write_page(
        tmp_path / "page.html", ROWS, pictures, settings, "model = load()", title="DIM", warnings=warnings
    ).read_text(encoding="utf-8")
    parts = ["<h1>DIM", warnings[0], "Of 2 models", "71.2 ± 1.0", "With few labels", "4.321", "17.200"]
    parts += [
        FIGURES["layers"].caption,
        FIGURES["projection"].caption,
        "data.dataset=cifar10",
        "seed=3",
        "model = load()",
    ]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert page.count("<img") == 2
    assert f'alt="{FIGURES["layers"].alt}"' in page


def test_a_page_without_rows_or_figures_is_one(tmp_path):
    page = write_page(tmp_path / "page.html", [], {}, {}, "model = load()").read_text(encoding="utf-8")
    assert "model = load()" in page
    assert "<table" not in page


def test_an_unknown_figure_is_named(tmp_path, picture):
    with pytest.raises(UsageError, match="Unknown figure of the page 'layer'"):
        write_page(tmp_path / "page.html", ROWS, {"layer": picture}, {}, "load()")
    assert not (tmp_path / "page.html").exists()
