import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["labels", "metrics", "segmentation"])
def test_examples_run(name):
    failures, tried = doctest.testmod(importlib.import_module(f"hf_infomax.downstream.{name}"))
    assert failures == 0
    assert tried > 0
