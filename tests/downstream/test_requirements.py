import sys

import pytest

from hf_infomax import UsageError
from hf_infomax.downstream import MapDecoder, requirements


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UsageError, match=r'pip install "hf-infomax\[downstream\]"'):
        MapDecoder([(3, 8, 8)], image_size=16, num_classes=2)


def test_the_library_is_given():
    assert requirements.segmentation_models().__name__ == "segmentation_models_pytorch"
