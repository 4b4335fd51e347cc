import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

_spec = importlib.util.spec_from_file_location(
    "neural_estimators", Path(__file__).parents[2] / "examples" / "neural_estimators.py"
)
neural_estimators = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(neural_estimators)


@pytest.mark.parametrize("information", [0.1, 4])
def test_pairs_have_the_information_of_their_covariance(information):
    x, y = neural_estimators.pairs(50_000, 2, information, torch.Generator().manual_seed(0))
    covariance = torch.cat([x, y], dim=1).T.cov().double()
    blocks = covariance[:2, :2].logdet() + covariance[2:, 2:].logdet()
    assert 0.5 * (blocks - covariance.logdet()).item() == pytest.approx(information, abs=0.02)


def test_the_total_correlation_is_that_of_the_factors():
    y = neural_estimators.factors(50_000, 0.4, torch.Generator().manual_seed(0)).double()
    truth = neural_estimators.total_correlation(0.4, neural_estimators.FACTORS)
    assert -0.5 * y.T.corrcoef().logdet().item() == pytest.approx(truth, abs=0.03)
    assert neural_estimators.total_correlation(0.0, 8) == 0
    assert neural_estimators.total_correlation(0.6, 2) == pytest.approx(-0.5 * math.log(1 - 0.36))


def test_endless_samples_find_most_of_a_small_information():
    found = neural_estimators.endless(2, 1.0, steps=250, hidden=32, negatives=2)
    assert len(found.values) == neural_estimators.RUNS
    assert 0.6 < found.mean < 1.1


def test_main_writes_results_table_and_figure(tmp_path, monkeypatch, capsys):
    tiny = {"INFORMATION": (0.5, 2), "DIMENSIONS": (2,), "FINITE": 200, "FINITE_DIMENSION": 2, "JUDGED": 100}
    tiny |= {"CORRELATIONS": (0.0, 0.5), "FACTOR_SAMPLES": 200, "DRAWS": 2, "NETWORKS": 2, "RUNS": 2, "BATCH": 32}
    for name, value in tiny.items():
        monkeypatch.setattr(neural_estimators, name, value)
    out = tmp_path / "card"
    assert neural_estimators.main(["--steps", "4", "--hidden", "8", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"results.json", "table.md", "figure.png"}
    results = json.loads((out / "results.json").read_text())
    assert [(row["samples"], row["truth"]) for row in results["information"]] == [
        ("endless", 0.5),
        ("endless", 2),
        (200, 0.5),
        (200, 2),
    ]
    assert [len(row["draws"]) for row in results["dependency"]] == [2, 2]
    table = (out / "table.md").read_text()
    assert "| d = 2, 200 samples |" in table
    assert table in capsys.readouterr().out
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
