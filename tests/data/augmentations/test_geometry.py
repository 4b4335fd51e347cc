"""What a geometry does to labels, boxes, flow and normals is what it does to the pixels."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from hf_infomax.data.augmentations import Draws, HorizontalFlip, RandomCrop, RandomResizedCrop
from hf_infomax.data.augmentations.geometry import Crop, Move, separable


def crop_of(boxes, side):
    """One (top, left, height, width) for each image."""
    return Crop.of(*torch.tensor(boxes, dtype=torch.float32).T, (side, side))


def whole(batch, height, width):
    return torch.tensor([height, width]).expand(batch, 2)


def flip_of(batch, height, width):
    return Move.of(whole(batch, height, width), (height, width), mirrored=torch.ones(batch, dtype=torch.bool))


# --- values and labels

BOXES = [(0, 0, 40, 48), (3, 5, 16, 16), (7, 2, 13, 29), (39, 47, 1, 1), (10, 0, 30, 2), (1, 1, 32, 8)]


@pytest.mark.parametrize("side", [16, 32, 64])
@pytest.mark.parametrize("channels", [None, 2])
def test_labels_are_torchvisions_nearest(side, channels):
    shape = (len(BOXES), 40, 48) if channels is None else (len(BOXES), channels, 40, 48)
    maps = torch.randint(0, 200, shape, dtype=torch.uint8)
    ours = crop_of(BOXES, side).labels(maps)
    assert ours.dtype == torch.uint8
    for label, box, picked in zip(maps, BOXES, ours, strict=True):
        stack = label if channels else label[None]
        expected = TF.resized_crop(stack, *box, [side, side], InterpolationMode.NEAREST_EXACT)
        assert torch.equal(picked if channels else picked[None], expected), box


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float64])
@pytest.mark.parametrize("side", [8, 64], ids=["batched", "one by one"])
def test_values_of_any_type(dtype, side):
    column = torch.randint(0, 255, (3, 1, 16, 16)).to(dtype)
    geometry = crop_of([(2, 3, 9, 12), (0, 0, 16, 16), (5, 5, 3, 2)], side)
    values = geometry.values(column)
    assert values.dtype == torch.float32
    rounded = 1.0 if dtype == torch.uint8 and side == 64 else 1e-3  # torch's kernel rounds bytes after either axis
    torch.testing.assert_close(values, geometry.values(column.float()), atol=rounded, rtol=0)


def test_one_by_one_equals_batched():
    images = torch.rand(len(BOXES), 3, 40, 48)
    geometry = crop_of(BOXES, 64)
    rows, columns = geometry._weights(1, 40), geometry._weights(0, 48)
    torch.testing.assert_close(separable(images, rows, columns), geometry.values(images), atol=1e-5, rtol=0)


def test_separable_is_two_products():
    images, rows, columns = torch.rand(2, 3, 5, 7), torch.rand(2, 4, 5), torch.rand(2, 6, 7)
    expected = torch.einsum("bhy,bcyx,bwx->bchw", rows, images, columns)
    torch.testing.assert_close(separable(images, rows, columns), expected)


def test_gradients_of_crops_of_any_size():
    for side in (8, 64):
        images = torch.rand(2, 3, 16, 16, requires_grad=True)
        crop_of([(2, 3, 8, 8), (0, 0, 16, 16)], side).values(images).sum().backward()
        torch.testing.assert_close(images.grad.sum(), torch.tensor(2 * 3.0 * side**2))
        assert images.grad[0, :, :2].eq(0).all()


@pytest.mark.parametrize("padding", [0, 1, 4, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_moves_reflect_as_torch_pads(padding, dtype):
    images = (torch.rand(6, 3, 8, 9) * 255).to(dtype)
    top, left = torch.randint(0, 2 * padding + 1, (2, 6)) - padding
    moved = Move.of(whole(6, 8, 9), (8, 9), top=top, left=left).values(images)
    padded = F.pad(images.float(), (padding,) * 4, mode="reflect")
    for image, result, y, x in zip(padded, moved, (top + padding).tolist(), (left + padding).tolist(), strict=True):
        assert torch.equal(result, image[:, y : y + 8, x : x + 9])


def test_windows_of_mirrored_images():
    images = torch.rand(2, 1, 6, 8)
    mirrored = torch.tensor([True, False])
    moved = Move.of(whole(2, 6, 8), (4, 5), top=torch.tensor([1, 1]), left=torch.tensor([2, 2]), mirrored=mirrored)
    expected = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)[..., 1:5, 2:7]
    assert torch.equal(moved.values(images), expected)


def test_reflections_of_reflections():
    row = torch.arange(3.0).view(1, 1, 1, 3)
    moved = Move.of(whole(1, 1, 3), (1, 13), left=-5).values(row).flatten().tolist()
    assert moved == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]


# --- boxes


def painted(boxes, height, width):
    """(B, 4) -> (B, H, W) masks of their pixels."""
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    return ((x > left) & (x < right) & (y > top) & (y < bottom)).to(torch.uint8)


def surrounding(mask):
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=torch.float32)


def random_boxes(batch, height, width):
    corners = torch.rand(batch, 2, 2).sort(1).values * torch.tensor([width - 4, height - 4])
    return torch.cat([corners[:, 0].floor(), corners[:, 1].floor() + 3], 1)


@pytest.mark.parametrize(
    ("augmentation", "exact"),
    [(RandomResizedCrop(64, (0.1, 0.6)), False), (RandomCrop(20), True), (HorizontalFlip(1.0), True)],
    ids=["resized crop", "crop", "flip"],
)
def test_boxes_follow_what_is_painted_in_them(augmentation, exact):
    batch, height, width = 200, 32, 40
    boxes = random_boxes(batch, height, width)
    geometry = augmentation.geometry(Draws.of(0, 0, torch.arange(batch)), whole(batch, height, width), (height, width))
    moved, masks = geometry.boxes(boxes[:, None])[:, 0], geometry.labels(painted(boxes, height, width))
    seen = masks.flatten(1).sum(1) > 0
    gone = moved.isnan().all(1)
    assert torch.equal(moved.isnan().any(1), gone)
    assert torch.equal(seen, ~gone)
    assert seen.any()
    assert gone.any() != isinstance(augmentation, HorizontalFlip)
    for box, mask in zip(moved[seen], masks[seen], strict=True):
        # A pixel is painted by where its centre falls, so that a side is known to half a pixel.
        torch.testing.assert_close(box, surrounding(mask), atol=0.0 if exact else 0.51, rtol=0)


def test_boxes_of_a_known_crop():
    boxes = torch.tensor([[[0, 0, 40, 40], [10, 20, 20, 30], [0, 0, 10, 40], [15, 15, 15, 30], [30, 30, 50, 50]]])
    moved = crop_of([(20, 10, 10, 20)], 40).boxes(boxes.float())
    nan = [torch.nan] * 4
    expected = torch.tensor([[[0.0, 0, 40, 40], [0, 0, 20, 40], nan, nan, nan]])
    torch.testing.assert_close(moved, expected, equal_nan=True)
    assert crop_of([(20, 10, 10, 20)], 40).boxes(torch.full((1, 2, 4), torch.nan)).isnan().all()


# --- flow and normals


def test_flow_under_a_flip():
    field = torch.rand(2, 4, 5, 6)  # two fields, stacked
    signs = torch.tensor([-1.0, 1.0, -1.0, 1.0]).view(4, 1, 1)
    assert torch.equal(flip_of(2, 5, 6).flow(field), field.flip(-1) * signs)


@pytest.mark.parametrize("side", [24, 64])
def test_flow_is_scaled_with_the_crop(side):
    field = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(2, -1, 32, 32)
    boxes = [(4, 8, 12, 24), (0, 0, 32, 32)]
    moved = crop_of(boxes, side).flow(field)
    for result, (_, _, height, width) in zip(moved, boxes, strict=True):
        expected = torch.tensor([3.0 * side / width, -2.0 * side / height]).view(2, 1, 1).expand_as(result)
        torch.testing.assert_close(result, expected)


def test_flow_still_leads_to_the_same_pixel():
    """A point and its displaced copy, both moved: the moved displacement joins them."""
    geometry = crop_of([(2, 3, 10, 20)], 40)
    start, displacement = torch.tensor([8.0, 6.0]), torch.tensor([5.0, 2.0])
    ends = torch.stack([start, start + displacement])
    corners = geometry.boxes(torch.cat([ends, ends + 1], 1)[None])[0, :, :2]
    moved = geometry.flow(displacement.view(1, 2, 1, 1).expand(1, 2, 16, 32))
    torch.testing.assert_close(corners[1] - corners[0], moved[0, :, 0, 0])


def unit_vectors(batch, height, width):
    return F.normalize(torch.randn(batch, 3, height, width), dim=1)


def test_normals_under_a_flip():
    normals = unit_vectors(2, 5, 6)
    flipped = normals.flip(-1) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    torch.testing.assert_close(flip_of(2, 5, 6).normals(normals), flipped)


@pytest.mark.parametrize("side", [12, 64])
def test_normals_of_a_plane_are_not_scaled(side):
    normal = F.normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0)
    plane = normal.view(1, 3, 1, 1).expand(1, 3, 32, 32)
    moved = crop_of([(3, 5, 8, 16)], side).normals(plane)  # stretched: another picture of the same surface
    torch.testing.assert_close(moved, normal.view(1, 3, 1, 1).expand_as(moved))


def test_normals_are_unit_vectors_and_missing_ones_stay_zero():
    normals = unit_vectors(2, 32, 32)
    normals[:, :, :16] = 0
    moved = crop_of([(0, 0, 32, 32), (0, 4, 30, 20)], 24).normals(normals)
    lengths = moved.norm(dim=1)
    assert moved.isfinite().all()
    assert moved[0, :, :11].eq(0).all()  # above what the filter reaches
    torch.testing.assert_close(lengths[:, 14:], torch.ones_like(lengths[:, 14:]))
