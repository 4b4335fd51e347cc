"""Libraries that only this folder needs, imported when they are used: most users of the package never do."""

from types import ModuleType

from hf_infomax.models.errors import library


def segmentation_models() -> ModuleType:
    """The library segmentation_models_pytorch.

    Raises:
        UsageError: it is not installed.
    """
    return library("segmentation_models_pytorch", "Segmentation", 'pip install "hf-infomax[downstream]"')
