"""Libraries that only this folder needs, imported when they are used: most users of the package never do."""

import importlib
from types import ModuleType

from hf_infomax.models.errors import UsageError


def segmentation_models() -> ModuleType:
    """The library segmentation_models_pytorch.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise UsageError(
            f'Segmentation needs segmentation_models_pytorch ({error}): pip install "hf-infomax[downstream]".'
        ) from error
