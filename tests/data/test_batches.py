import datasets
import pytest
import torch
from torch.utils.data import Subset

from hf_infomax.data import DecodedDataset, StreamingImages, collate, data_loader, decode_images, load_dataset
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


def test_one_item(pixels):
    item = DecodedDataset(pixels)[4]
    assert torch.equal(item["pixel_values"], pixels[4])
    assert item["sample_index"] == 4


def test_columns_must_fit(pixels):
    with pytest.raises(UsageError, match="'labels' has 9 rows and there are 10 images"):
        DecodedDataset(pixels, {"labels": torch.arange(9)})
    with pytest.raises(UsageError, match="'sample_index' would replace"):
        DecodedDataset(pixels, {"sample_index": torch.arange(10)})


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
