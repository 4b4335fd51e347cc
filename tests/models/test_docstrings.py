import doctest
import importlib
import pkgutil

import pytest

from hf_infomax import models

MODULES = [module.name for module in pkgutil.iter_modules(models.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failures, _ = doctest.testmod(importlib.import_module(f"{models.__name__}.{name}"))
    assert failures == 0
