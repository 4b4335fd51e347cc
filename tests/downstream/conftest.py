import pytest

from hf_infomax import CMCConfig, CMCModel

TINY = {"channels": [4, 6, 8], "hidden_sizes": [8]}


@pytest.fixture
def model():
    """A tiny encoder of L, ab and depth."""
    columns = {"depth": {"mean": 4000, "std": 2000}}
    return CMCModel(CMCConfig(backbone_kwargs=TINY, views=["L", "ab", "depth"], columns=columns))
