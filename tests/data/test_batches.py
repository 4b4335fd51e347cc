import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from PIL import Image
from scipy import stats
from torch.utils.data import Subset

from hf_infomax.data import (
    DecodedDataset,
    StreamingImages,
    collate,
    data_loader,
    decode_images,
    every_image,
    load_dataset,
)
from hf_infomax.models.errors import UsageError

NAME = "hf_infomax/colour_digits"


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def stream():
    return load_dataset(NAME, "train", streaming=True)


def test_a_batch_is_the_images_at_its_indices(pixels):
    dataset = DecodedDataset(pixels, {"labels": torch.arange(10) * 10})
    batch = dataset.__getitems__([7, 0, 7])
    assert set(batch) == {"pixel_values", "sample_index", "labels"}
    assert torch.equal(batch["pixel_values"], torch.stack([pixels[7], pixels[0], pixels[7]]))
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["sample_index"].tolist() == [7, 0, 7]
    assert batch["sample_index"].dtype == torch.int64
    assert batch["labels"].tolist() == [70, 0, 70]
    assert collate(batch) is batch


@pytest.fixture
def mixed():
    """Images of different sizes with class maps, as a dataset."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(10, 30, (20, 2))
    rows = {
        "image": [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes],
        "semantic": [Image.fromarray(rng.integers(0, 9, size, dtype=np.uint8)) for size in sizes],
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(dict.fromkeys(rows, datasets.Image())))


def test_images_of_different_sizes_are_padded_and_say_how_large_they_are(mixed):
    decoded = decode_images(mixed, "image", shorter_side=12, progress=False)
    semantic = decode_images(mixed, "semantic", shorter_side=12, kind="labels", progress=False)
    dataset = DecodedDataset(decoded.pixels, {"semantic": semantic.pixels})
    batch = dataset.__getitems__([7, 0, 7])
    assert set(batch) == {"pixel_values", "sample_index", "image_sizes", "semantic"}
    assert batch["image_sizes"].tolist() == decoded.sizes[[7, 0, 7]].tolist()
    assert batch["pixel_values"].shape[-2:] == batch["semantic"].shape[-2:] == tuple(batch["image_sizes"].amax(0))
    assert torch.equal(batch["semantic"], semantic.pixels[[7, 0, 7]][0])
    item = dataset[4]
    assert item["pixel_values"].shape[1:] == tuple(item["image_sizes"].tolist()) == tuple(decoded.sizes[4].tolist())


@pytest.mark.parametrize("size", [{"shorter_side": 12}, {"image_size": 12}])
def test_a_stream_pads_as_decoded_images_do(mixed, size):
    columns = {"semantic": "labels"}
    images = StreamingImages(mixed.to_iterable_dataset(), "image", **size, columns=columns)
    decoded = [decode_images(mixed, name, **size, kind=kind) for name, kind in {"image": "pixels", **columns}.items()]
    dataset = DecodedDataset(decoded[0].pixels, {"semantic": decoded[1].pixels})
    found = list(data_loader(images, batch_size=8, shuffle=False, drop_last=False))
    for batch, indices in zip(found, torch.arange(20).split(8), strict=True):
        expected = dataset.__getitems__(indices)
        del expected["sample_index"]
        assert batch.pop("present")["semantic"].tolist() == [True] * len(indices)
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
        assert batch["semantic"].dtype == torch.int32


@pytest.fixture
def gaps(mixed):
    """The same with maps missing: of the largest image, and of the whole first batch of four."""
    largest = max(range(len(mixed)), key=lambda row: mixed[row]["image"].height)
    missing = {0, 1, 2, 3, largest}
    maps = [None if row in missing else image for row, image in enumerate(mixed["semantic"])]
    rows = {"image": mixed["image"][:], "semantic": maps}
    return datasets.Dataset.from_dict(rows, features=mixed.features), missing


@pytest.mark.parametrize("size", [{"shorter_side": 12}, {"image_size": 12}])
def test_missing_rows_are_zeros_of_the_image_s_size_and_not_present(gaps, size):
    dataset, missing = gaps
    decoded = decode_images(dataset, "image", **size, progress=False)
    maps = decode_images(dataset, "semantic", **size, kind="labels", on_missing="blank", progress=False)
    images = DecodedDataset(decoded.pixels, {"semantic": maps.pixels, "x": torch.ones(20)}, {"semantic": maps.present})
    stream = StreamingImages(dataset.to_iterable_dataset(), "image", **size, columns={"semantic": "labels"})
    streamed = data_loader(stream, batch_size=4, shuffle=False, drop_last=False)
    for index, other in zip(torch.arange(20).split(4), streamed, strict=True):
        batch = images.__getitems__(index)
        assert set(batch["present"]) == {"semantic"}
        assert batch["present"]["semantic"].tolist() == [row not in missing for row in index.tolist()]
        assert batch["semantic"].shape[-2:] == batch["pixel_values"].shape[-2:]
        assert (batch["semantic"][~batch["present"]["semantic"]] == 0).all()
        assert torch.equal(other["semantic"], batch["semantic"])
        assert torch.equal(other["present"]["semantic"], batch["present"]["semantic"])
    assert images[2]["present"]["semantic"].shape == ()
    assert not images[2]["present"]["semantic"]


def test_what_is_missing_is_zero_whatever_the_column_holds(pixels):
    there = torch.arange(10) % 3 > 0
    dataset = DecodedDataset(pixels, {"x": torch.full((10, 2), torch.nan), "y": pixels}, {"x": there, "y": there})
    batch = dataset.__getitems__([0, 1, 3])
    assert batch["x"].isnan().all(1).tolist() == [False, True, False]
    assert batch["y"].flatten(1).any(1).tolist() == [False, True, False]
    assert pixels[[0, 3]].flatten(1).any(1).all()  # the column itself is untouched


def test_a_set_without_gaps_says_nothing_of_presence(pixels):
    dataset = DecodedDataset(pixels, {"x": torch.ones(10)}, {"x": torch.ones(10, dtype=torch.bool)})
    assert set(dataset.__getitems__([1])) == {"pixel_values", "sample_index", "x"}


def test_presence_goes_through_the_loaders_of_accelerate(pixels):
    there = torch.arange(10) != 4
    dataset = DecodedDataset(pixels, {"x": torch.arange(10.0)}, {"x": there})
    for split_batches in (False, True):
        configuration = DataLoaderConfiguration(split_batches=split_batches)
        loader = Accelerator(cpu=True, dataloader_config=configuration).prepare(data_loader(dataset, 4, True, True))
        for batch in loader:
            assert torch.equal(batch["present"]["x"], batch["sample_index"] != 4)


def test_one_item(pixels):
    item = DecodedDataset(pixels)[4]
    assert torch.equal(item["pixel_values"], pixels[4])
    assert item["sample_index"] == 4


def test_columns_must_fit(pixels):
    with pytest.raises(UsageError, match="'labels' has 9 rows and there are 10 images"):
        DecodedDataset(pixels, {"labels": torch.arange(9)})
    with pytest.raises(UsageError, match="'sample_index' would replace"):
        DecodedDataset(pixels, {"sample_index": torch.arange(10)})
    with pytest.raises(UsageError, match="'present' would replace"):
        DecodedDataset(pixels, {"present": torch.arange(10)})
    with pytest.raises(UsageError, match="where 'depth' is present, and there is no such column"):
        DecodedDataset(pixels, present={"depth": torch.ones(10, dtype=torch.bool)})
    with pytest.raises(UsageError, match="'x' has 9 rows"):
        DecodedDataset(pixels, {"x": torch.arange(10)}, {"x": torch.ones(9, dtype=torch.bool)})
    with pytest.raises(UsageError, match="'image_sizes' would replace"):
        DecodedDataset(pixels, {"image_sizes": torch.arange(10)})


def test_loader_reads_a_batch_at_a_time(pixels, monkeypatch):
    def one_by_one(self, index):
        raise AssertionError("read one image at a time")

    monkeypatch.setattr(DecodedDataset, "__getitem__", one_by_one)
    found = list(data_loader(DecodedDataset(pixels), batch_size=4, shuffle=False, drop_last=False))
    assert [len(batch["sample_index"]) for batch in found] == [4, 4, 2]
    assert torch.equal(torch.cat([batch["pixel_values"] for batch in found]), pixels)


def test_shuffled_batches_are_seeded_and_complete(pixels):
    def order(seed):
        torch.manual_seed(seed)
        loader = data_loader(DecodedDataset(pixels), batch_size=5, shuffle=True, drop_last=True)
        return [index for batch in loader for index in batch["sample_index"].tolist()]

    assert sorted(order(0)) == list(range(10))
    assert order(0) == order(0) != order(1)


def test_smaller_last_batch_is_dropped(pixels):
    loader = data_loader(DecodedDataset(pixels), batch_size=4, shuffle=True, drop_last=True)
    assert [len(batch["pixel_values"]) for batch in loader] == [4, 4]
    assert len(loader) == 2


def test_sample_index_survives_a_subset(pixels):
    loader = data_loader(Subset(DecodedDataset(pixels), [9, 2]), batch_size=2, shuffle=False, drop_last=False)
    (batch,) = loader
    assert batch["sample_index"].tolist() == [9, 2]


def test_too_few_images_for_a_batch(pixels):
    with pytest.raises(UsageError, match=r"10 images and a batch takes 16.*at most 10"):
        data_loader(DecodedDataset(pixels), batch_size=16, shuffle=True, drop_last=True)
    assert len(data_loader(DecodedDataset(pixels), batch_size=16, shuffle=True, drop_last=False)) == 1
    with pytest.raises(UsageError, match="batch size is 0"):
        data_loader(DecodedDataset(pixels), batch_size=0, shuffle=True, drop_last=False)


def test_a_stream_gives_the_pixels_of_decoding_at_once(stream, digits):
    loader = data_loader(StreamingImages(stream, "image", 24), batch_size=300, shuffle=False, drop_last=False)
    found = list(loader)
    assert set(found[0]) == {"pixel_values"}
    assert found[0]["pixel_values"].dtype == torch.uint8
    expected = decode_images(digits, "image", 24, progress=False).pixels
    assert torch.equal(torch.cat([batch["pixel_values"] for batch in found]), expected)


def test_a_stream_is_shuffled_by_the_caller_anew_each_epoch(stream):
    images = StreamingImages(stream.take(50).shuffle(seed=0, buffer_size=50), "image", 32)

    def order(epoch):
        images.set_epoch(epoch)
        return torch.stack([item["pixel_values"] for item in images]).flatten(1).float().mean(dim=1).tolist()

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))
    with pytest.raises(UsageError, match=r"stream\.shuffle"):
        data_loader(images, batch_size=4, shuffle=True, drop_last=True)


def test_worker_processes_share_a_stream_out(stream, digits):
    images = StreamingImages(stream.shuffle(seed=0, buffer_size=100), "image", 32)
    loader = data_loader(images, batch_size=100, shuffle=False, drop_last=False, workers=2)

    def epoch(number):
        images.set_epoch(number)  # reaches workers that live on from the last epoch
        return [image.numpy().tobytes() for batch in loader for image in batch["pixel_values"]]

    first, second = epoch(0), epoch(1)
    once = decode_images(digits, "image", 32, progress=False).pixels
    assert sorted(first) == sorted(second) == sorted(image.numpy().tobytes() for image in once)
    assert first != second


def test_corrupt_images_of_a_stream(digits, caplog):
    raw = digits.select(range(4)).cast_column("image", datasets.Image(decode=False))

    def spoil(row, index):
        return {"image": {"bytes": b"spoilt", "path": None} if index == 2 else row["image"]}

    spoilt = raw.map(spoil, with_indices=True, keep_in_memory=True).cast_column("image", datasets.Image())
    spoilt = spoilt.to_iterable_dataset()
    with pytest.raises(UsageError, match=r"place 2 of the stream.*data\.on_corrupt=skip"):
        list(StreamingImages(spoilt, "image", 32))
    assert len(list(StreamingImages(spoilt, "image", 32, on_corrupt="skip"))) == 3
    assert "1 of 4 images" in caplog.text
    with pytest.raises(UsageError, match="choose stop or skip"):
        StreamingImages(spoilt, "image", 32, on_corrupt="hide")


def test_images_drawn_with_replacement_are_drawn_evenly_and_again_and_again():
    images = DecodedDataset(torch.zeros(20, 3, 4, 4, dtype=torch.uint8))
    loader = data_loader(images, batch_size=10, shuffle=True, drop_last=True, replacement=True)
    drawn = torch.stack([batch["sample_index"] for _ in range(200) for batch in loader])  # (400, 10)
    assert stats.chisquare(drawn.flatten().bincount(minlength=20)).pvalue > 1e-3
    assert len(loader) == 2
    assert any(len(set(batch)) < 10 for batch in drawn.tolist())
    assert not torch.equal(drawn[:2], drawn[2:4])


def test_every_image_comes_once_and_the_first_ones_fill_up():
    images = DecodedDataset(torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 2, 2))
    batches = list(every_image(images, 3))
    assert [batch["sample_index"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    assert batches[2]["pixel_values"][0, 0, 0, 0] == 6
