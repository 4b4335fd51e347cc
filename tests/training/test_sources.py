import io
from contextlib import nullcontext
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from hf_infomax import UsageError, data
from recipe import load_recipe
from sources import training_loader, view_options

pytestmark = pytest.mark.usefixtures("folder", "no_sleep")


def grey(level, size=(8, 8)):
    return Image.new("RGB", size, (level, level, level))


def recipe(dataset, *overrides):
    splits = ["data.train_split=train", "data.eval_split=null"]
    settings = [f"data.dataset={dataset}", *splits, "train.batch_size=4", "output_dir=unused"]
    return load_recipe("dim_colour_digits_cpu", [*settings, *overrides])


STREAM = ("data.streaming=true", "train.max_steps=100", "data.shuffle_buffer=10")


def levels(batches):
    return [int(image.max()) for batch in batches for image in batch["pixel_values"]]


@pytest.mark.parametrize("shards", [1, 2, 3, 4])
@pytest.mark.parametrize("epoch", [0, 1])
def test_processes_read_the_whole_stream_and_nothing_twice(shards, epoch, files, monkeypatch):
    monkeypatch.setattr(torch.distributed, "new_group", lambda backend: None)
    settings = recipe(files([grey(level) for level in range(40)], shards), *STREAM, "train.batch_size=2")

    def part(rank, processes=2):
        accelerator = SimpleNamespace(
            num_processes=processes,
            process_index=rank,
            main_process_first=nullcontext,
            device=torch.device("cpu"),
        )
        loader, _ = training_loader(settings, 8, accelerator)
        loader.set_epoch(epoch)
        return levels(loader)

    first, second = part(0), part(1)
    assert len(first) == len(second) == 20
    assert sorted(first + second) == list(range(40)) == sorted(part(0, processes=1))
    assert first != sorted(first)


def test_accelerate_leaves_a_streams_loader_alone(files):
    accelerator = Accelerator(cpu=True)
    loader, images = training_loader(recipe(files([grey(level) for level in range(30)]), *STREAM), 8, accelerator)
    assert images is None
    assert accelerator.prepare(loader) is loader
    orders = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        orders.append(levels(loader))
        assert len(set(orders[-1])) == 28  # seven batches of four
        loader.set_epoch(epoch)
        assert levels(accelerator.skip_first_batches(loader, 3)) == orders[-1][12:]
    assert orders[0] != orders[1]


def test_a_stream_without_one_batch_is_one_sentence(files):
    loader, _ = training_loader(recipe(files([grey(1)] * 3), *STREAM), 8, Accelerator(cpu=True))
    with pytest.raises(UsageError, match=r"ends before its first batch, which takes 4 images.*train\.batch_size"):
        list(loader)


@pytest.mark.parametrize("overrides", [(), STREAM])
def test_a_batch_that_cannot_be_shared_evenly_is_one_sentence(overrides, files):
    three = SimpleNamespace(num_processes=3, process_index=0, main_process_first=nullcontext)
    with pytest.raises(UsageError, match=r"train\.batch_size=4 cannot be shared evenly by 3 processes"):
        training_loader(recipe(files([grey(1)] * 8), *overrides), 8, three)


@pytest.mark.parametrize("overrides", [("data.workers=0",), STREAM])
@pytest.mark.parametrize("size", ["null", "6"])
def test_further_columns_arrive_under_their_names(size, overrides, files):
    sizes = [(10 + index, 12) for index in range(8)]
    maps = {
        "semantic": [Image.fromarray(np.full(size[::-1], index, dtype=np.uint8)) for index, size in enumerate(sizes)],
        "depth": [
            Image.fromarray(np.full(size[::-1], index * 300, dtype=np.uint16)) for index, size in enumerate(sizes)
        ],
    }
    dataset = files([grey(index, size) for index, size in enumerate(sizes)], **maps)
    columns = ["data.columns={semantic: labels, depth: values}", f"data.shorter_side={size}"]
    loader, _ = training_loader(recipe(dataset, *overrides, *columns), 8, Accelerator(cpu=True))
    for batch in loader:
        for row, image in enumerate(batch["pixel_values"]):
            name = int(image.max())
            height, width = batch["image_sizes"][row].tolist() if size == "6" else (8, 8)
            assert (batch["semantic"][row, 0, :height, :width] == name).all()
            assert (batch["depth"][row, 0, :height, :width] == 300 * name).all()
        assert batch["depth"].dtype == torch.float32
        assert batch["semantic"].shape == (4, 1, *batch["pixel_values"].shape[-2:])


def test_a_row_that_one_column_skips_goes_from_the_others(files):
    maps = [Image.new("L", (8, 8), level) for level in range(8)]
    maps[2] = {"bytes": b"spoilt", "path": None}
    dataset = files([*map(grey, range(5)), None, *map(grey, range(6, 8))], semantic=maps)
    with_maps = recipe(dataset, "data.columns={semantic: labels}", "data.on_corrupt=skip", "train.batch_size=6")
    loader, images = training_loader(with_maps, 8, Accelerator(cpu=True))
    assert images == 6
    (batch,) = loader
    assert batch["pixel_values"].amax(dim=(1, 2, 3)).tolist() == batch["semantic"].amax(dim=(1, 2, 3)).tolist()
    assert sorted(levels([batch])) == [0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize("overrides", [(), STREAM])
@pytest.mark.parametrize(
    ("name", "sentence"), [("label", "'label' holds no images"), ("deptj", "the dataset has no column 'deptj'")]
)
def test_a_column_that_is_not_there_or_holds_no_images_is_one_sentence(name, sentence, overrides, files):
    dataset = files([grey(1)] * 8, depth=[grey(2)] * 8)
    with pytest.raises(UsageError, match=f"{sentence}: its columns of images are image, depth.$"):
        training_loader(recipe(dataset, f"data.columns={{{name}: labels}}", *overrides), 8, Accelerator(cpu=True))


@pytest.mark.parametrize("overrides", [(), STREAM])
def test_a_row_without_a_view_stays(overrides, files):
    maps = [None if level in (2, 5) else Image.new("L", (8, 8), level + 1) for level in range(8)]
    dataset = files([grey(level) for level in range(8)], semantic=maps, depth=[Image.new("L", (8, 8), 7)] * 8)
    settings = recipe(dataset, "data.columns={semantic: labels, depth: values}", *overrides)
    loader, images = training_loader(settings, 8, Accelerator(cpu=True))
    assert images in (8, None)
    found = {}
    for batch in loader:
        assert set(batch["present"]) == ({"semantic", "depth"} if overrides else {"semantic"})
        there = batch["present"]["semantic"].tolist()
        found |= dict(
            zip(levels([batch]), zip(there, batch["semantic"][:, 0, 0, 0].tolist(), strict=True), strict=True)
        )
    assert found == {level: (level not in (2, 5), 0 if level in (2, 5) else level + 1) for level in range(8)}


@pytest.fixture
def clips(tmp_path):
    """Three sequences of six frames, of which two images are corrupt and one has a corrupt map; each frame has its level."""

    def write(spoilt=True):
        def encoded(image):
            file = io.BytesIO()
            image.save(file, "PNG")
            return {"bytes": file.getvalue(), "path": None}

        images, maps = [[encoded(grey(10 + level, (16, 16))) for level in range(18)] for _ in range(2)]
        if spoilt:
            images[3] = images[10] = maps[13] = {"bytes": b"spoilt", "path": None}
        rows = {"image": images, "map": maps, "clip": [name for name in "abc" for _ in range(6)]}
        features = {"image": datasets.Image(), "map": datasets.Image(), "clip": datasets.Value("string")}
        datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(
            tmp_path / "clips" / "0.parquet"
        )
        return str(tmp_path / "clips")

    return write


CLIPS = ("data.sequence_column=clip", "data.frames={next_frame: 2}", "data.flow={flow: 2}")


@pytest.mark.parametrize("columns", ["{}", "{map: pixels}"])
def test_frames_and_flow_of_a_recipe(columns, clips):
    settings = recipe(clips(), *CLIPS, f"data.columns={columns}", "data.on_corrupt=skip", "train.batch_size=5")
    loader, images = training_loader(settings, 16, Accelerator(cpu=True))
    gone = {3, 10, 13} if columns != "{}" else {3, 10}
    assert images == 18 - len(gone)
    views = data.recipes.load(image_size=16, **view_options(settings))
    for batch in loader:
        batch |= views(**batch)
        assert batch["flow"].shape == (5, 4, 16, 16)
        assert set(batch["present"]) == {"next_frame", "flow"}
        rows = [round(255 * level) - 10 for level in batch["pixel_values"].amax((1, 2, 3)).tolist()]
        later = [round(255 * level) - 10 for level in batch["next_frame"].amax((1, 2, 3)).tolist()]
        for place, row in enumerate(rows):
            frame = row + 2 if (row + 2) // 6 == row // 6 and row + 2 not in gone else None
            assert batch["present"]["next_frame"][place] == (frame is not None)
            assert later[place] == (frame if frame is not None else -10)
            around = [row - 1, row, row + 1]
            whole = all(other // 6 == row // 6 and other not in gone for other in around)
            assert batch["present"]["flow"][place] == whole


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("data.sequence_column=null",), r"set data\.sequence_column"),
        (("data.sequence_column=video",), "no column 'video': choose one of image, map, clip"),
        (("data.sequence_column=map",), "'map' holds no plain values"),
        (("data.frames={next_frame: 6}",), r"no image has one 6 rows later .* which has 6: .*data\.frames"),
        (("data.flow={flow: 6}",), r"6 fields of flow need 7 frames .*data\.flow"),
        (STREAM, r"which a stream does not keep: set data\.streaming=false"),
        (("data.columns={next_frame: pixels}",), "the dataset has no column 'next_frame'"),
    ],
)
def test_mistakes_about_clips_are_one_sentence(overrides, sentence, clips, monkeypatch):
    monkeypatch.setattr("hf_infomax.data.flow.TVL1.__call__", None)  # nothing is computed before it is said
    with pytest.raises(UsageError, match=sentence) as caught:
        training_loader(recipe(clips(spoilt=False), *CLIPS, *overrides), 16, Accelerator(cpu=True))
    assert "\n" not in str(caught.value)


def test_views_of_a_recipe_know_its_columns():
    settings = recipe("unused", *CLIPS, "data.columns={map: pixels}", "views={recipe: cmc, again: [second_crop]}")
    options = view_options(settings)
    assert options["columns"] == {"map": "pixels", "next_frame": "pixels", "flow": "flow"}
    assert list(data.recipes.load(image_size=16, **options).branches) == ["pixel_values", "second_crop"]
    without = view_options(recipe("unused", "views={recipe: infomin, leave_out: [jigsaw_values]}"))
    assert list(data.recipes.load(image_size=16, **without).branches) == ["pixel_values"]
    with pytest.raises(UsageError, match=r"two views are named 'flow' in data\.columns, data\.frames and data\.flow"):
        view_options(recipe("unused", *CLIPS, "data.columns={flow: values}"))
