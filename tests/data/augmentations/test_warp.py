"""Warps equal Pillow's `Image.transform`, and all that belongs to an image goes with it."""

import math

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF

from hf_infomax.data.augmentations.warp import Warp

FILL = (0.2, 0.4, 0.6)
RESAMPLING = {0.0: Image.Resampling.BILINEAR, 1.0: Image.Resampling.BICUBIC}


def turn(degrees, height, width, scale=1.0):
    """The map of a turn about the centre, counter-clockwise as seen."""
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]]


def maps(height, width):
    """Name -> (2, 3)."""
    return {
        "identity": [[1, 0, 0], [0, 1, 0]],
        "move": [[1, 0, 0.3 * width], [0, 1, 0]],
        "move by halves": [[1, 0, 0], [0, 1, -4.5]],
        "shear across": [[1, 0.27, -2], [0, 1, 0]],
        "shear down": [[1, 0, 0], [-0.31, 1, 1.23]],
        "turn": turn(27, height, width),
        "turn and zoom": turn(-75, height, width, scale=0.7),
        "anything": [[0.9, 0.4, -3], [-0.2, 1.1, 5.5]],
    }


def warp(matrix, images, bicubic=0.0, **keys):
    """One map for all of a batch."""
    batch, size = len(images), tuple(images.shape[-2:])
    matrix = torch.tensor(matrix, dtype=torch.float32).expand(batch, 2, 3)
    return Warp.of(matrix, torch.tensor(size).expand(batch, 2), size, torch.full((batch,), bicubic), **keys)


def pillow(image: Tensor, matrix, resampling, fill) -> Tensor:
    picture = TF.to_pil_image(image)
    coefficients = [value for row in matrix for value in row]
    return TF.pil_to_tensor(
        picture.transform(picture.size, Image.Transform.AFFINE, coefficients, resampling, fillcolor=fill)
    )


@pytest.mark.parametrize("bicubic", [0.0, 1.0], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("name", maps(1, 1))
def test_values_equal_pillow(name, bicubic, fidelity, pictures):
    for images in [*pictures(32, 32), *pictures(40, 56)]:
        matrix = maps(*images.shape[-2:])[name]
        ours = warp(matrix, images, bicubic, fill=FILL).values(images / 255).clamp(0, 1)
        fill = tuple(round(255 * value) for value in FILL)
        theirs = torch.stack([pillow(image, matrix, RESAMPLING[bicubic], fill) for image in images])
        fidelity(f"warp, {'bicubic' if bicubic else 'bilinear'}", "Pillow", ours, theirs, bound=0.6 / 255)


@pytest.mark.parametrize("name", maps(1, 1))
def test_labels_equal_pillow(name):
    labels = torch.randint(0, 20, (3, 21, 34), dtype=torch.uint8)
    matrix = maps(21, 34)[name]
    theirs = torch.stack([pillow(image[None], matrix, Image.Resampling.NEAREST, 255)[0] for image in labels])
    ours = warp(matrix, labels).labels(labels)
    assert ours.dtype == labels.dtype
    assert (ours != theirs).float().mean() < 0.002  # points on the edge of a pixel may fall to either side


def test_images_have_maps_and_interpolations_of_their_own(pictures):
    images = pictures()[0][:8] / 255
    matrices = torch.tensor([maps(32, 32)[name] for name in maps(1, 1)], dtype=torch.float32)
    sizes, bicubic = torch.tensor([32, 32]).expand(8, 2), torch.arange(8) % 2
    together = Warp.of(matrices, sizes, (32, 32), bicubic, FILL).values(images)
    alone = [
        Warp.of(matrices[i : i + 1], sizes[:1], (32, 32), bicubic[i : i + 1], FILL).values(images[i : i + 1])
        for i in range(8)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)
    assert torch.equal(together[0], images[0])


def test_units_and_fills():
    images = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    moved = [[1, 0, 4.0], [0, 1, 0]]
    values = warp(moved, images, fill=FILL).values(images)
    torch.testing.assert_close(values[0, :, 0, 0], torch.full((3,), 100.0))
    torch.testing.assert_close(values[0, :, 0, 7], 255 * torch.tensor(FILL))
    depth = torch.ones(1, 1, 8, 8)
    assert warp(moved, depth, fill=FILL).values(depth)[0, 0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    assert warp(moved, mask).labels(mask)[0, 0].tolist() == [True] * 4 + [False] * 4
    assert warp(moved, mask, fill_label=7).labels(mask.long())[0, 0].tolist() == [1] * 4 + [7] * 4


@pytest.mark.parametrize("name", maps(1, 1))
def test_flow_goes_where_the_pixels_go(name):
    """A displacement of the input, drawn from a point, is the displacement between the two points' images."""
    matrix = torch.tensor(maps(32, 32)[name], dtype=torch.float64)
    displacement = torch.tensor([1.5, -0.5], dtype=torch.float64)
    inverse = torch.linalg.inv(matrix[:, :2])
    expected = inverse @ displacement
    fields = displacement.float().view(1, 2, 1, 1).expand(1, 2, 32, 32).repeat(1, 2, 1, 1)  # two fields stacked
    flow = warp(matrix.tolist(), fields, bicubic=1.0, fill=(1.0, 1.0)).flow(fields)
    inside = warp(matrix.tolist(), fields).values(torch.ones(1, 1, 32, 32))[0, 0] > 0
    torch.testing.assert_close(
        flow[0, :2, inside], expected.float()[:, None].expand(2, inside.sum()), atol=1e-5, rtol=0
    )
    assert torch.equal(flow[:, :2], flow[:, 2:])
    assert (flow[..., ~inside] == 0).all()


def test_normals_turn_with_the_image_and_stay_unit_vectors():
    """What points right points up after a quarter turn counter-clockwise; y points down."""
    right = torch.tensor([0.6, 0.0, 0.8]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    turned = warp(turn(90, 16, 16), right).normals(right)
    torch.testing.assert_close(turned[0, :, 8, 8], torch.tensor([0.0, -0.6, 0.8]))
    corners = warp(turn(45, 16, 16), right, fill=FILL).normals(right)
    assert (corners[0, :, 0, 0] == 0).all()
    torch.testing.assert_close(corners[0, :, 8, 8].norm(), torch.tensor(1.0))


def test_boxes_hold_what_they_held():
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[0, 20:30, 24:44] = 1
    box = torch.tensor([[[24.0, 20.0, 44.0, 30.0], [0.0, 0.0, 1.0, 1.0]]])
    for name in ("turn", "shear across", "anything"):
        mapped = warp(maps(64, 64)[name], labels)
        rows, columns = (mapped.labels(labels)[0] == 1).nonzero().unbind(1)
        x0, y0, x1, y1 = mapped.boxes(box)[0, 0].tolist()
        # By its pixels' centres, and no wider than they need.
        for low, high, pixels in ((x0, x1, columns + 0.5), (y0, y1, rows + 0.5)):
            assert low - 1e-3 <= pixels.min() <= low + 1.5
            assert high - 1.5 <= pixels.max() <= high + 1e-3
    assert warp([[1, 0, 8], [0, 1, 0]], labels).boxes(box)[0, 1].isnan().all()


def test_gradients_pass_to_the_pixels():
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    warp(turn(20, 8, 8), images, bicubic=1.0).values(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_compiled_equals_eager(pictures):
    images = pictures()[0][:8] / 255
    matrices = torch.tensor([maps(32, 32)[name] for name in maps(1, 1)], dtype=torch.float32)
    sizes, bicubic = torch.tensor([32, 32]).expand(8, 2), torch.arange(8) % 2

    def values(images, matrices):
        return Warp.of(matrices, sizes, (32, 32), bicubic, FILL).values(images)

    compiled = torch.compile(values, backend="aot_eager", fullgraph=True)(images, matrices)
    torch.testing.assert_close(compiled, values(images, matrices), rtol=0, atol=1e-4)
