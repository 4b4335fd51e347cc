import errno
import multiprocessing
import os
import shutil
import signal
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from hf_infomax.data import cache, decode_images
from hf_infomax.data.decoding import Decoder
from hf_infomax.models.errors import UsageError

DECODE = Decoder.__call__


def as_dataset(images):
    features = datasets.Features({"image": datasets.Image()})
    return datasets.Dataset.from_dict({"image": [Image.fromarray(image) for image in images]}, features=features)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def dataset(noise):
    return as_dataset(noise)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def decode(dataset, **options):
    return decode_images(dataset, "image", **{"image_size": 8, "progress": False, **options})


def stores(folder):
    """Everything in the folder, but for the locks."""
    return sorted(path for path in folder.iterdir() if path.name != ".locks")


@pytest.fixture
def forbid_decoding(monkeypatch):
    def forbid():
        def refuse(self, value):
            raise AssertionError("decoded again")

        monkeypatch.setattr(Decoder, "__call__", refuse)

    return forbid


def in_processes(*targets):
    """Run functions in processes of their own, at once -> their exit codes."""
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=target) for target in targets]
    for process in running:
        process.start()
    for process in running:
        process.join()
    return [process.exitcode for process in running]


def test_the_second_call_opens_what_the_first_has_written(dataset, noise, folder, forbid_decoding):
    first = decode(dataset)
    assert torch.equal(first.pixels, torch.from_numpy(noise).permute(0, 3, 1, 2))
    forbid_decoding()
    second = decode(dataset)
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.indices, second.indices)
    assert len(stores(folder)) == 1


def test_other_settings_or_other_data_are_another_store(dataset, noise, folder):
    decode(dataset)
    decode(dataset, image_size=4)
    decode(dataset, image_size=None, shorter_side=8)
    other = noise.copy()
    other[7] = 0
    changed = decode(as_dataset(other))
    assert (changed.pixels[7] == 0).all()
    assert len(decode(dataset.select(range(9))).pixels) == 9
    assert len(stores(folder)) == 5


def test_no_cache_is_kept_where_none_is_wanted(dataset, folder):
    kept = decode(dataset)
    shutil.rmtree(folder)
    assert torch.equal(decode(dataset, cache=False).pixels, kept.pixels)
    assert not folder.exists()


def test_the_default_folder_is_below_that_of_hugging_face(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_INFOMAX_CACHE")
    monkeypatch.setattr(cache.constants, "HF_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "hf_infomax" / "images"


def test_a_process_killed_half_way_leaves_nothing_that_looks_whole(dataset, noise, folder, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK", 1)  # every image is written at once

    def build_and_die():
        rows = iter(range(60))

        def decode_or_die(self, value):
            if next(rows) == 50:
                os.kill(os.getpid(), signal.SIGKILL)
            return DECODE(self, value)

        Decoder.__call__ = decode_or_die
        decode(dataset)

    assert in_processes(build_and_die) == [-signal.SIGKILL]
    (debris,) = stores(folder)
    assert (debris / "pixels.bin").stat().st_size == 50 * 8 * 8 * 3
    assert torch.equal(decode(dataset).pixels, torch.from_numpy(noise).permute(0, 3, 1, 2))
    (whole,) = stores(folder)
    assert whole.name == debris.stem


def test_debris_of_other_stores_goes_too_unless_somebody_builds_it(dataset, folder):
    for name in ("dead", "alive"):
        (folder / f"{name}.partial").mkdir(parents=True)
    (folder / ".locks").mkdir()
    with FileLock(folder / ".locks" / "alive.lock"):
        decode(dataset)
    assert not (folder / "dead.partial").exists()
    assert (folder / "alive.partial").exists()


def test_of_two_processes_one_builds_and_the_other_waits(dataset, folder):
    context = multiprocessing.get_context("fork")
    decoded, together = context.Value("i", 0), context.Barrier(2)

    def build():
        def count(self, value):
            with decoded.get_lock():
                decoded.value += 1
            return DECODE(self, value)

        Decoder.__call__ = count
        together.wait()
        assert len(decode(dataset).pixels) == 60

    assert in_processes(build, build) == [0, 0]
    assert decoded.value == 60
    assert len(stores(folder)) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(number, dataset, folder, monkeypatch):
    write, written = cache._write, []

    def fill_up(file, data):
        written.append(len(data))
        if sum(written) > 30 * 8 * 8 * 3:
            raise OSError(number, os.strerror(number))
        write(file, data)

    monkeypatch.setattr(cache, "_write", fill_up)
    monkeypatch.setattr(cache, "_BLOCK", 1)
    with pytest.raises(
        UsageError, match=r"needs about 0\.0 MB in .*MB are free.*HF_INFOMAX_CACHE.*data\.streaming"
    ) as e:
        decode(dataset)
    assert str(folder) in str(e.value)
    assert "\n" not in str(e.value)
    assert stores(folder) == []


def test_the_space_of_squares_is_asked_for_before_they_are_decoded(dataset, folder, monkeypatch, forbid_decoding):
    forbid_decoding()
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=60 * 3_000_000 - 1))
    with pytest.raises(UsageError, match=r"needs about 180\.0 MB .* where 180\.0 MB are free"):
        decode(dataset, image_size=1000)
    assert stores(folder) == []


def test_any_other_end_of_the_build_leaves_nothing_either(dataset, folder, monkeypatch):
    def interrupt(self, value):
        raise KeyboardInterrupt

    monkeypatch.setattr(Decoder, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(dataset)
    assert stores(folder) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(dataset, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"file/cache' cannot be written \(Not a directory\): set HF_INFOMAX_CACHE"):
        decode(dataset)


@pytest.mark.parametrize("name", ["pixels.bin", "images.bin", "meta.json"])
@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 20), os.remove])
def test_a_damaged_store_is_built_anew(name, damage, dataset, noise, folder):
    decode(dataset)
    (store,) = stores(folder)
    damage(store / name)
    assert torch.equal(decode(dataset).pixels, torch.from_numpy(noise).permute(0, 3, 1, 2))
    assert stores(folder) == [store]
    assert cache.open_store(store) is not None


def test_a_store_built_under_one_policy_is_asked_again_under_the_other(noise, folder, forbid_decoding):
    values = as_dataset(noise).cast_column("image", datasets.Image(decode=False))[:]["image"]
    values[3] = {"bytes": b"no image at all", "path": None}
    spoilt = datasets.Dataset.from_dict({"image": values}, features=datasets.Features({"image": datasets.Image()}))
    assert decode(spoilt, on_corrupt="skip").skipped == 1
    forbid_decoding()
    again = decode(spoilt, on_corrupt="skip")
    assert again.skipped == 1
    assert 3 not in again.indices
    with pytest.raises(UsageError, match=r"row 3 .*UnidentifiedImageError.*data\.on_corrupt=skip"):
        decode(spoilt)


def test_the_bar_is_shown_only_while_images_are_decoded(dataset, capsys):
    decode(dataset, progress=True)
    assert "decoding image" in capsys.readouterr().err
    decode(dataset, progress=True)
    assert capsys.readouterr().err == ""
