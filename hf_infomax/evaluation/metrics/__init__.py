"""Modules for the `evaluate` library, loaded from this folder without a network: each only calls the function of its name.

>>> import evaluate
>>> from hf_infomax.evaluation import metrics
>>> module = evaluate.load(metrics.path("ms_ssim"))
>>> image = [[[0.5] * 8] * 8] * 3
>>> round(module.compute(predictions=[image], references=[image])["ms_ssim"], 2)
1.0
"""

from pathlib import Path

from hf_infomax.models.errors import unknown_name

#: What can be loaded.
NAMES = ("knn", "mine", "ms_ssim", "ndm")


def path(name: str) -> str:
    """Where the script of a metric lies, for `evaluate.load`.

    Args:
        name: "knn", "mine", "ms_ssim" or "ndm".

    Raises:
        UsageError: there is no such metric.

    >>> Path(path("mine")).name
    'mine.py'
    """
    if name not in NAMES:
        raise unknown_name("metric", name, NAMES)
    return str(Path(__file__).with_name(f"{name}.py"))
