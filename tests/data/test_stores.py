import copy
import os
import pickle
import sys
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from hf_infomax.data import DecodedDataset, data_loader, stores
from hf_infomax.data.cache import Source, in_memory, on_disk
from hf_infomax.data.stores import MappedTensor, VariableImages, open_images, pad
from hf_infomax.models.errors import UsageError

RNG = np.random.default_rng(0)
SAME = [RNG.integers(0, 256, (3, 5, 4), dtype=np.uint8) for _ in range(40)]
DIFFERENT = [RNG.integers(0, 256, (3, *RNG.integers(1, 9, 2)), dtype=np.uint8) for _ in range(40)]


def source(images):
    def fill(writer):
        for row, image in enumerate(images):
            writer.append(image, row * 2, (row, 7))
        return {"note": "kept"}

    return Source(fill, 3, np.dtype(np.uint8), len(images))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("images", [SAME, DIFFERENT])
def test_a_store_gives_back_what_was_written(images):
    for store in (on_disk("key", source(images)), in_memory(source(images))):
        assert store.rows.tolist() == list(range(0, 80, 2))
        assert store.sizes.tolist() == [list(image.shape[1:]) for image in images]
        assert store.original_sizes.tolist() == [[row, 7] for row in range(40)]
        assert store.notes == {"note": "kept"}
        assert len(store.images()) == 40


@pytest.mark.filterwarnings("error")
def test_images_of_one_size_are_a_tensor_over_the_file(folder):
    images = on_disk("key", source(SAME)).images()
    assert isinstance(images, MappedTensor)
    assert torch.equal(images, torch.from_numpy(np.stack(SAME)))
    assert type(images[torch.tensor([1, 2])]) is type(images[3:5]) is type(images.float()) is torch.Tensor
    before = (folder / "key" / "pixels.bin").read_bytes()
    images.zero_()  # a page of this process' own
    assert images.sum() == 0
    assert (folder / "key" / "pixels.bin").read_bytes() == before
    assert type(in_memory(source(SAME)).images()) is torch.Tensor


@pytest.mark.parametrize("store", [on_disk, lambda key, source: in_memory(source)])
def test_images_of_different_sizes_are_padded_by_the_batch(store):
    images = store("key", source(DIFFERENT)).images()
    assert isinstance(images, VariableImages)
    assert (len(images), images.dtype) == (40, torch.uint8)
    for index in ([5], [3, 1, 3], torch.arange(40), [-1]):
        padded, sizes = images[index]
        chosen = [DIFFERENT[int(i)] for i in index]
        assert sizes.tolist() == [list(image.shape[1:]) for image in chosen]
        assert padded.shape == (len(chosen), 3, *np.max([image.shape[1:] for image in chosen], axis=0))
        assert padded.sum() == sum(int(image.sum()) for image in chosen)  # all else is 0
        for image, expected, (height, width) in zip(padded, chosen, sizes, strict=True):
            assert torch.equal(image[:, :height, :width], torch.from_numpy(expected))


def test_padding():
    padded = pad([torch.ones(2, 1, 3), torch.full((2, 2, 1), 5)])
    assert padded.tolist() == [[[[1, 1, 1], [0, 0, 0]]] * 2, [[[5, 0, 0], [5, 0, 0]]] * 2]
    assert pad([torch.ones(2, 1, 3), torch.ones(2, 0, 0)], least=(2, 1)).shape == (2, 2, 2, 3)


@pytest.mark.parametrize("images", [SAME, DIFFERENT])
@pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps])
def test_mapped_images_travel_by_their_path(images, dumps):
    mapped = on_disk("key", source(images * 20)).images()
    dataset = DecodedDataset(mapped, {"same": mapped})
    sent = bytes(dumps(dataset))
    assert len(sent) < 1_000
    index = [799, 3, 50]
    arrived = pickle.loads(sent).__getitems__(index)
    assert all(torch.equal(arrived[name], values) for name, values in dataset.__getitems__(index).items())


def test_images_in_memory_travel_whole():
    images = in_memory(source(DIFFERENT)).images()
    arrived = pickle.loads(pickle.dumps(images))
    assert torch.equal(arrived[range(40)][0], images[range(40)][0])


def test_a_deep_copy_is_mapped_anew():
    images = on_disk("key", source(SAME)).images()
    other = copy.deepcopy(images)
    images.zero_()
    assert torch.equal(other, torch.from_numpy(np.stack(SAME)))


def test_a_store_that_is_gone_is_one_sentence(folder):
    with pytest.raises(UsageError, match="gone or damaged"):
        open_images(folder / "key")


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("images", [SAME, DIFFERENT])
def test_workers_give_the_same_batches(images):
    dataset = DecodedDataset(on_disk("key", source(images)).images())

    def batches(workers):
        torch.manual_seed(0)
        return list(data_loader(dataset, batch_size=16, shuffle=True, drop_last=False, workers=workers))

    expected = batches(0)
    assert torch.cat([batch["sample_index"] for batch in expected]).sort().values.tolist() == list(range(40))
    for workers in (1, 4):
        for batch, same in zip(batches(workers), expected, strict=True):
            assert batch.keys() == same.keys()
            assert all(torch.equal(batch[name], same[name]) for name in same)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory there is")
def test_a_store_may_be_larger_than_the_memory(tmp_path):
    bytes_of_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with open(tmp_path / "sparse", "wb") as file:
        try:
            file.truncate(10 * bytes_of_memory)
        except OSError:
            pytest.skip("the file system takes no sparse file of that size")
    values = torch.from_numpy(stores._map(tmp_path / "sparse", np.dtype(np.uint8)))
    assert values[-1] == 0
