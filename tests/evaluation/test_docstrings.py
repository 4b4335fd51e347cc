import doctest
import importlib
from pathlib import Path

import pytest

from hf_infomax import evaluation

MODULES = tuple(
    path.stem for path in Path(evaluation.__file__).parent.glob("*.py") if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_examples_run(name):
    failures, _ = doctest.testmod(importlib.import_module(f"hf_infomax.evaluation.{name}"))
    assert failures == 0
