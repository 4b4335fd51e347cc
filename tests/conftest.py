"""No test asks the network, each starts from the same random state, and the embedded digits are drawn once and in small numbers."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("GOMP_SPINCOUNT", "0")  # spinning threads slow down whatever runs beside them

import datasets
import pytest
import torch

from hf_infomax.data import loading
from hf_infomax.data.colour_digits import ColourDigits, ColourDigitsConfig


class FewDigits(ColourDigits):
    """The embedded dataset with fewer images: 1,100 for training (one block and a part of one) and 300 for testing."""

    BUILDER_CONFIGS = [
        ColourDigitsConfig(name="default", version=ColourDigits.VERSION, train_images=1_100, test_images=300)
    ]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def image_cache(tmp_path_factory):
    """Decoded images are kept away from the user's, and shared by the tests (and the processes that they start)."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("images")
        patch.setenv("HF_INFOMAX_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def digits_cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(autouse=True)
def embedded(monkeypatch, digits_cache):
    """`load_dataset("hf_infomax/colour_digits", ...)` gives few images, cached away from the user's."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", digits_cache)
    monkeypatch.setitem(loading.EMBEDDED, "hf_infomax/colour_digits", FewDigits)


@pytest.fixture
def digits():
    """The training images as a `datasets.Dataset`."""
    return loading.load_dataset("hf_infomax/colour_digits", "train")
