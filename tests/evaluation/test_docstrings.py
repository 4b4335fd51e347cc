import doctest
import importlib

import pytest

MODULES = ("features", "figures", "knn", "logistic", "probes", "report", "ridge", "table")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failures, _ = doctest.testmod(importlib.import_module(f"hf_infomax.evaluation.{name}"))
    assert failures == 0
