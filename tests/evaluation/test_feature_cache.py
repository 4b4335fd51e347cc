import logging
import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import hf_infomax
from hf_infomax.evaluation.feature_cache import cached_features, fingerprint, model_fingerprint
from hf_infomax.evaluation.features import extract_features
from hf_infomax.models.errors import UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache of this test's own."""
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def files(folder):
    return sorted(folder.glob("*.safetensors"))


def read(model, pixels, *args, **options):
    """The features, and in how many passes they were computed."""
    model.seen.clear()
    features = cached_features(model, pixels, *args, progress=False, **options)
    return features, len(model.seen)


def test_the_second_time_is_read_and_not_computed(model, pixels, folder):
    computed, passes = read(model, pixels)
    found, none = read(model, pixels)
    assert (passes, none) == (1, 0)
    assert list(found) == list(computed) == ["conv", "wide", "y"]
    for name, values in extract_features(model, pixels, progress=False).items():
        assert found[name].equal(values)
        assert computed[name].equal(values)
    assert len(files(folder)) == 3


def test_a_further_layer_is_all_that_is_computed(model, pixels, folder):
    read(model, pixels, ["y"])
    before = {path: path.stat().st_mtime_ns for path in files(folder)}
    both, passes = read(model, pixels, ["conv", "y"])
    assert (list(both), passes) == (["conv", "y"], 1)
    assert len(files(folder)) == 2
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert read(model, pixels, ["y", "conv"])[1] == 0


def test_a_file_is_plain_safetensors_of_aligned_values(model, pixels, folder):
    computed, _ = read(model, pixels, ["y"])
    (path,) = files(folder)
    assert load_file(path)["features"].equal(computed["y"])
    assert read(model, pixels, ["y"])[0]["y"].data_ptr() % 64 == 0


def test_what_is_written_into_mapped_features_stays_here(model, pixels):
    first, _ = read(model, pixels, ["y"])
    read(model, pixels, ["y"])[0]["y"].zero_()
    assert read(model, pixels, ["y"])[0]["y"].equal(first["y"])


def another_weight(model, pixels):
    with torch.no_grad():
        model.y.bias[0] += 1e-3
    return {}


def another_statistic(model, pixels):
    model.norm.running_mean[0] += 1e-3
    return {}


def another_pixel(model, pixels):
    pixels[3, 1, 5, 7] ^= 1
    return {}


@pytest.mark.parametrize(
    "change",
    [
        another_weight,
        another_statistic,
        another_pixel,
        lambda model, pixels: {"precision": "bf16"},
        lambda model, pixels: {"pool": "avg"},
    ],
)
def test_whatever_changes_the_features_changes_the_key(model, pixels, change, folder):
    read(model, pixels, ["conv"])
    options = change(model, pixels)
    found, passes = read(model, pixels, ["conv"], **options)
    assert passes == 1
    assert found["conv"].equal(extract_features(model, pixels, ["conv"], progress=False, **options)["conv"])
    assert len(files(folder)) == 2


def test_fewer_images_or_another_order_are_others(pixels):
    keys = {fingerprint(images) for images in (pixels, pixels[:5], pixels.flip(0), pixels.float(), pixels.flatten(1))}
    assert len(keys) == 5
    assert fingerprint(pixels.contiguous(memory_format=torch.channels_last)) == fingerprint(pixels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_tensors_of_any_type_have_a_fingerprint(dtype):
    assert fingerprint(torch.ones(3, 2).to(dtype)) != fingerprint(torch.zeros(3, 2).to(dtype))
    assert fingerprint(torch.ones((), dtype=dtype)) != fingerprint(torch.ones(0, dtype=dtype))


def test_a_model_is_its_weights_modules_and_configuration(tmp_path):
    model = hf_infomax.DIMModel(hf_infomax.DIMConfig(backbone_kwargs={"channels": [4, 8, 8], "hidden_sizes": [8]}))
    model.save_pretrained(tmp_path)
    loaded = hf_infomax.AutoModel.from_pretrained(tmp_path)
    assert model_fingerprint(loaded) == model_fingerprint(model)  # wherever it comes from
    loaded.config.image_std = [0.25, 0.25, 0.25]
    assert model_fingerprint(loaded) != model_fingerprint(model)
    strided, plain = nn.Conv2d(1, 1, 2, stride=2), nn.Conv2d(1, 1, 2)
    plain.load_state_dict(strided.state_dict())
    assert model_fingerprint(strided) != model_fingerprint(plain)


def cut(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [cut, flip, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\xff" * 300)],
    ids=["cut short", "one bit", "empty", "noise"],
)
def test_a_damaged_file_is_made_anew(model, pixels, damage, folder):
    whole, _ = read(model, pixels, ["y"])
    (path,) = files(folder)
    content = path.read_bytes()
    damage(path)
    found, passes = read(model, pixels, ["y"])
    assert passes == 1
    assert found["y"].equal(whole["y"])
    assert path.read_bytes() == content
    assert read(model, pixels, ["y"])[1] == 0


def test_an_interrupted_write_leaves_nothing_that_is_read(model, pixels, folder, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(model, pixels, ["y"])
    assert [path.name for path in folder.iterdir()] == [".locks"]
    assert read(model, pixels, ["y"])[1] == 1


def test_a_folder_that_cannot_be_written_costs_a_warning(model, pixels, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        found, _ = read(model, pixels, ["y"])
    assert found["y"].equal(extract_features(model, pixels, ["y"], progress=False)["y"])
    assert "Features are not kept" in caplog.text


def test_without_the_cache_nothing_is_read_or_written(model, pixels, folder):
    assert read(model, pixels, ["y"], cache=False)[1] == 1
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["convv"]}, "'convv'"),
        ({"precision": "int8"}, "'int8'"),
        ({"pixels": torch.zeros(0, 3, 8, 8)}, "no images"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(model, pixels, options, message, folder):
    with pytest.raises(UsageError, match=message):
        cached_features(model, **({"pixels": pixels, "progress": False} | options))
    assert not folder.exists()
