"""Small configurations of every method, and everything that transformers or Python warned of."""

import logging
import warnings

import pytest
import torch

from hf_infomax import CMCConfig, DIMConfig, InfoMinConfig, InstDiscConfig, PredictiveConfig

SMALL = {"backbone_kwargs": {"channels": [8, 12, 16], "hidden_sizes": [24]}, "representation_size": 10}


@pytest.fixture
def dim_config():
    def make(**options):
        sizes = {"dot_units": 16, "concat_units": 12, "prior_units": [12]}
        return DIMConfig(**{**SMALL, **sizes, **options})

    return make


@pytest.fixture
def cmc_config():
    def make(**options):
        return CMCConfig(**{**SMALL, **options})

    return make


@pytest.fixture
def instdisc_config():
    def make(preset="ir", **options):
        count = None if preset == "simclr" else 8  # all of the batch
        sizes = {"critic_units": 12, "ball_size": 12, "num_negatives": count, "num_neighbors": 3, "bank_fill": "random"}
        clusters = {"num_clusters": 10, "num_clusterings": 2, "cluster_iterations": 5}
        return InstDiscConfig.preset(preset, **{**SMALL, **sizes, **clusters, **options})

    return make


@pytest.fixture
def infomin_config():
    def make(preset="infomin", **options):
        bank = {"num_negatives": 8, "bank_fill": "random"} if preset == "pirl" else {}
        sizes = {"head_units": 6, "queue_size": 16, "queue_fill": "grow"}
        return InfoMinConfig.preset(preset, **{**SMALL, **sizes, **bank, **options})

    return make


@pytest.fixture
def predictive_config():
    def make(**options):
        return PredictiveConfig(**{**SMALL, "decoder_channels": [8, 6], **options})

    return make


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32)


@pytest.fixture
def silent(caplog):
    """A context is not needed: the test fails when transformers logs a warning or Python raises one."""
    logger = logging.getLogger("transformers")  # does not propagate to the root, where caplog listens
    logger.addHandler(caplog.handler)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    logger.removeHandler(caplog.handler)
    assert [str(warning.message) for warning in raised] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
