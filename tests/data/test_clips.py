import pickle

import numpy as np
import pytest
import torch

from hf_infomax.data import Clips, DecodedDataset, data_loader
from hf_infomax.data.cache import Source, on_disk
from hf_infomax.data.stores import VariableImages
from hf_infomax.models.errors import UsageError

# Four sequences, mixed; three rows have no image.
SEQUENCES = [*"aaabbacbbcc", *"bccacbbaccb", *"ddddddd"]
ROWS = torch.tensor([row for row in range(len(SEQUENCES)) if row not in (1, 8, 25)])
PIXELS = torch.arange(len(ROWS), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 5).contiguous()


def naive(image, offset):
    """The image `offset` rows after one in its sequence, or None."""
    row = int(ROWS[image])
    of_sequence = [other for other, name in enumerate(SEQUENCES) if name == SEQUENCES[row]]
    place = of_sequence.index(row) + offset
    if not 0 <= place < len(of_sequence) or of_sequence[place] not in ROWS:
        return None
    return ROWS.tolist().index(of_sequence[place])


@pytest.fixture
def clips():
    return Clips(SEQUENCES, ROWS)


@pytest.mark.parametrize("step", [1, 2, -1, 5, -6])
def test_a_later_frame_is_the_naive_one(clips, step):
    column = clips.frames(PIXELS, step)
    for image in range(len(ROWS)):
        expected = naive(image, step)
        assert column.present[image] == (expected is not None)
        if expected is not None:
            assert (column.batch(torch.tensor([image])) == expected).all()


def test_a_skipped_frame_leaves_a_gap():
    clips = Clips([7, 7, 7, 7], torch.tensor([0, 2, 3]))
    assert clips.has([1]).tolist() == [False, True, False]
    assert clips.has([2]).tolist() == [True, False, False]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_stack_of_fields_is_the_naive_one(clips, length):
    fields = torch.randn(len(ROWS), 2, 4, 5).half()
    column = clips.flow(fields, length)
    index = torch.randperm(len(ROWS))
    stacks = column.batch(index)
    assert stacks.shape == (len(ROWS), 2 * length, 4, 5)
    assert stacks.dtype == torch.float16
    for stack, image in zip(stacks, index.tolist(), strict=True):
        offsets = range(-(length // 2), length - length // 2)
        frames = [naive(image, offset) for offset in (*offsets, offsets[-1] + 1)]
        assert column.present[image] == (None not in frames)
        if column.present[image]:
            assert torch.equal(stack, torch.cat([fields[row] for row in frames[:-1]]))
    assert column.present.any()
    assert not column.present.all()


def test_ten_fields_are_centred_on_the_frame():
    column = Clips([0] * 16).flow(torch.arange(16.0).view(16, 1, 1, 1).expand(16, 2, 1, 1), 10)
    assert column.present.nonzero().flatten().tolist() == list(range(5, 11))
    assert column.batch(torch.tensor([7])).flatten().tolist() == [row for row in range(2, 12) for _ in "uv"]


def test_numbers_and_strings_name_sequences_alike():
    numbers = [ord(name) for name in SEQUENCES]
    assert torch.equal(Clips(numbers, ROWS).has([2]), Clips(SEQUENCES, ROWS).has([2]))


def variable(sizes):
    values = [np.full(3 * height * width, row + 1, dtype=np.uint8) for row, (height, width) in enumerate(sizes)]
    return VariableImages(np.concatenate(values), torch.tensor(sizes), channels=3)


def test_frames_of_different_sizes_are_padded():
    images = variable([(2, 3), (2, 3), (4, 1), (4, 1), (4, 1)])
    clips = Clips("aabbb")
    column = clips.frames(images, 1)
    dataset = DecodedDataset(images, {"next_frame": column}, {"next_frame": column.present})
    batch = dataset.__getitems__([0, 3, 4, 1])
    assert batch["next_frame"].shape == batch["pixel_values"].shape == (4, 3, 4, 3)
    assert batch["next_frame"].amax((1, 2, 3)).tolist() == [2, 5, 0, 0]
    assert torch.equal(batch["next_frame"][0, :, 2:], torch.zeros(3, 2, 3, dtype=torch.uint8))
    assert batch["present"]["next_frame"].tolist() == [True, True, False, False]
    with pytest.raises(UsageError, match=r"2x3 \(image 1\) and 4x1 pixels.*data\.shorter_side=null"):
        Clips("aaabb").frames(images, 1)


@pytest.mark.parametrize("sizes", [[(4, 5)] * 40, [(4, 5)] * 20 + [(3, 7)] * 20])
def test_windows_travel_by_the_path_of_their_images_and_workers_read_them(sizes, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path))

    def fill(writer):
        for row, size in enumerate(sizes * 25):
            writer.append(np.full((3, *size), row % 251, dtype=np.uint8), row, size)
        return {}

    images = on_disk("key", Source(fill, 3, np.dtype(np.uint8), 1_000)).images()
    column = Clips([row // 20 for row in range(1_000)]).frames(images, 3)
    dataset = DecodedDataset(images, {"later": column, "twice": column}, {"later": column.present})
    rows_of_clips = 4 * 8 * 1_000  # bytes
    assert len(pickle.dumps(dataset)) < rows_of_clips
    expected = list(data_loader(dataset, batch_size=16, shuffle=False, drop_last=False))
    for batch, same in zip(data_loader(dataset, 16, shuffle=False, drop_last=False, workers=1), expected, strict=True):
        assert torch.equal(batch["later"], same["later"])
        assert torch.equal(batch["present"]["later"], same["present"]["later"])
    later = torch.cat([batch["later"].amax((1, 2, 3)) for batch in expected])
    present = torch.cat([batch["present"]["later"] for batch in expected])
    assert torch.equal(later[present], (torch.arange(1_000)[present] + 3).remainder(251))
    assert (later[~present] == 0).all()


def test_steps_that_no_sequence_has(clips):
    for step, sentence in ((0, "a step other than 0"), (12, "12 rows later .* which has 8"), (-12, "12 rows earlier")):
        with pytest.raises(UsageError, match=sentence):
            clips.frames(PIXELS, step)
    fields = torch.zeros(len(ROWS), 2, 4, 5)
    with pytest.raises(UsageError, match=r"20 fields of flow need 21 frames .* longest sequence has 8 rows"):
        clips.flow(fields, 20)
    with pytest.raises(UsageError, match="a stack of 0 fields"):
        clips.flow(fields, 0)
