"""No test asks the network, each starts from the same random state, and the embedded sets are drawn once and in small numbers."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("GOMP_SPINCOUNT", "0")  # spinning threads slow down whatever runs beside them

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState

from hf_infomax.data import loading
from hf_infomax.data.colour_digits import ColourDigits, ColourDigitsConfig
from hf_infomax.data.scenes import Scenes, ScenesConfig


class FewDigits(ColourDigits):
    """The embedded dataset with fewer images: 1,100 for training (one block and a part of one) and 300 for testing."""

    BUILDER_CONFIGS = [
        ColourDigitsConfig(name="default", version=ColourDigits.VERSION, train_images=1_100, test_images=300)
    ]


class FewScenes(Scenes):
    """The embedded scenes in small numbers: 30 for training and 10 for testing, 3 and 2 where they are large or clips."""

    __module__ = Scenes.__module__  # what `datasets` names a cache after; the digits have this one's
    BUILDER_CONFIGS = [
        ScenesConfig(name="default", version=Scenes.VERSION, train_scenes=30, test_scenes=10),
        ScenesConfig(name="large", version=Scenes.VERSION, image_size=128, train_scenes=3, test_scenes=2),
        ScenesConfig(name="clips", version=Scenes.VERSION, frames=6, train_scenes=3, test_scenes=2),
    ]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate allows a process one precision, and a run sets the threads; the tests use several."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)


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
    """`load_dataset("hf_infomax/...", ...)` gives few images, cached away from the user's."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", digits_cache)
    monkeypatch.setitem(loading.EMBEDDED, "hf_infomax/colour_digits", FewDigits)
    monkeypatch.setitem(loading.EMBEDDED, "hf_infomax/scenes", FewScenes)


@pytest.fixture
def digits():
    """The training images as a `datasets.Dataset`."""
    return loading.load_dataset("hf_infomax/colour_digits", "train")


@pytest.fixture
def scenes():
    """The training scenes as a `datasets.Dataset`."""
    return loading.load_dataset("hf_infomax/scenes", "train")
