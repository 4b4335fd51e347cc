import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_infomax.data import Clips, decode_images, flow, load_dataset, optical_flow
from hf_infomax.data.stores import MappedTensor, VariableImages
from hf_infomax.models.errors import UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded():
    """Three sequences of six frames."""
    frames = load_dataset("hf_infomax/scenes", "train", config="clips")
    return decode_images(frames, "image", image_size=32, progress=False), Clips(frames["sequence"])


def texture(height, width):
    """Blobs, (1, 3, H, W) in [0, 255]."""
    noise = torch.rand(1, 1, height // 6, width // 6, generator=torch.Generator().manual_seed(3))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1).expand(-1, 3, -1, -1) * 255


def stores(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".locks")


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (2, 1)])
def test_a_translation_is_found_to_the_right_and_down(right, down):
    """What moves to the right and down by (u, v) is, in a window, what the window moved by (-u, -v) sees."""
    scene = texture(90, 96)
    frames = [scene[0, :, 15 - n * down : 63 - n * down, 15 - n * right : 71 - n * right] for n in range(3)]
    images = torch.stack(frames).round().to(torch.uint8)
    fields = optical_flow(images, Clips([0, 0, 0]), progress=False)
    assert fields.shape == (3, 2, 48, 56)
    assert fields.dtype == torch.float16
    assert (fields[2] == 0).all()
    inside = fields[:2, :, 8:-8, 8:-8].float()  # what enters at the border has no partner
    wanted = torch.tensor([float(right), float(down)]).view(1, 2, 1, 1).expand_as(inside)
    assert (inside - wanted).norm(dim=1).mean() < 0.15


def test_it_leads_from_each_frame_of_a_scene_to_the_next(decoded):
    images, clips = decoded[0].pixels.float() / 255, decoded[1]
    fields = optical_flow(decoded[0].pixels, clips, progress=False).float()
    there = clips.has([1])
    assert there.sum() == 15
    assert (fields[~there] == 0).all()
    frame, following, field = images[there], images[there.roll(1)], fields[there]
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    grid = torch.stack([(x + field[:, 0]) / 16 - 1, (y + field[:, 1]) / 16 - 1], dim=3)
    brought_back = F.grid_sample(following, grid, padding_mode="border", align_corners=False)
    still, moved = ((other - frame).abs().mean((1, 2, 3)) for other in (following, brought_back))
    assert (moved < 0.7 * still).all()


def test_it_is_computed_once_and_kept_beside_the_images(decoded, folder, monkeypatch):
    images, clips = decoded[0].pixels, decoded[1]
    fields = optical_flow(images, clips, progress=False)
    assert isinstance(fields, MappedTensor)
    assert len(stores(folder)) == 2

    def refuse(self, frame, following):
        raise AssertionError("computed again")

    monkeypatch.setattr(flow.TVL1, "__call__", refuse)
    assert torch.equal(optical_flow(images, Clips(["x"] * 6 + ["y"] * 6 + ["z"] * 6), progress=False), fields)
    for other, method in ((Clips([0] * 18), flow.TVL1()), (clips, flow.TVL1(attachment=15.0))):
        with pytest.raises(AssertionError, match="computed again"):
            optical_flow(images, other, method, progress=False)
    assert len(stores(folder)) == 2  # of the attempts nothing is left


def test_images_in_memory_leave_nothing_on_the_disk(decoded, folder):
    images = decoded[0].pixels[:4].clone()
    before = stores(folder)
    fields = optical_flow(images, Clips([0, 0, 0, 0]), progress=False)
    assert type(fields) is torch.Tensor
    assert stores(folder) == before


def test_processes_compute_the_same_and_draw_nothing(decoded, monkeypatch):
    images, clips = decoded[0].pixels[:].clone(), decoded[1]
    alone = optical_flow(images, clips, progress=False)
    monkeypatch.setattr(flow, "_PIXELS_A_PROCESS", 1)
    monkeypatch.setattr(flow, "_cores", lambda: 2)
    before = torch.get_rng_state()
    shared_out = optical_flow(images, clips, progress=False)
    assert torch.equal(alone, shared_out)
    assert torch.equal(torch.get_rng_state(), before)


def test_fields_are_as_large_as_their_frames():
    sizes = torch.tensor([[24, 30], [24, 30], [26, 20], [26, 20]])
    values = np.random.default_rng(0).integers(0, 256, int(3 * sizes.prod(1).sum()), dtype=np.uint8)
    images, clips = VariableImages(values, sizes, channels=3), Clips("aabb")
    fields = optical_flow(images, clips, progress=False)
    assert isinstance(fields, VariableImages)
    assert (fields.channels, fields.dtype) == (2, torch.float16)
    assert torch.equal(fields.sizes, sizes)
    stacks = clips.flow(fields, 1).batch(torch.tensor([0, 2]))
    assert stacks.shape == (2, 2, 26, 30)
    assert (stacks[0, :, 24:] == 0).all()
    with pytest.raises(UsageError, match="frames of a sequence are 24x30 "):
        optical_flow(images, Clips("aaab"), progress=False)


def test_without_scikit_image_it_says_how_to_get_it(decoded, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.registration", None)
    with pytest.raises(UsageError, match=r"scikit-image.*pip install") as caught:
        optical_flow(decoded[0].pixels, decoded[1], progress=False)
    assert "\n" not in str(caught.value)
    assert len(stores(folder)) == 1


def test_the_bar_is_shown_only_while_fields_are_computed(decoded, capsys):
    images, clips = decoded[0].pixels, decoded[1]
    optical_flow(images, clips)
    assert "optical flow" in capsys.readouterr().err
    optical_flow(images, clips)
    assert capsys.readouterr().err == ""
