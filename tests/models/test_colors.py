import numpy as np
import pytest
import skimage.color
import torch

from hf_infomax.models.colors import COLOR_SPACES, rgb_to_lab, rgb_to_xyz, rgb_to_ycbcr

CONVERSIONS = {  # ours, scikit-image's, the span of its values
    "xyz": (rgb_to_xyz, skimage.color.rgb2xyz, 1.0),
    "lab": (rgb_to_lab, skimage.color.rgb2lab, 200.0),
    "ycbcr": (rgb_to_ycbcr, skimage.color.rgb2ycbcr, 220.0),
}

every_conversion = pytest.mark.parametrize("name", CONVERSIONS)


@pytest.fixture
def colours():
    """(3, 1, N): black, white and the pure colours, greys through the linear part of the gamma, and many others."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    greys = torch.linspace(0, 0.1, 41)[:, None].expand(-1, 3)
    dark = 0.05 * torch.rand(200, 3)
    return torch.cat([corners, greys, dark, torch.rand(2_000, 3)]).T.unsqueeze(1)


def peer(convert, rgb):
    return torch.from_numpy(convert(rgb.double().numpy(), channel_axis=-3).astype(np.float64))


@every_conversion
def test_equals_scikit_image(name, colours):
    ours, theirs, span = CONVERSIONS[name]
    converted = ours(colours)
    assert converted.shape == colours.shape
    torch.testing.assert_close(converted.double(), peer(theirs, colours), rtol=0, atol=1e-5 * span)


@every_conversion
def test_acts_on_the_third_dimension_from_the_end(name):
    ours, theirs, span = CONVERSIONS[name]
    images = torch.rand(2, 4, 3, 5, 6)
    converted = ours(images)
    torch.testing.assert_close(converted.double(), peer(theirs, images), rtol=0, atol=1e-5 * span)
    torch.testing.assert_close(converted[1, 2], ours(images[1, 2]), rtol=0, atol=1e-6 * span)


@every_conversion
def test_gradients_are_finite_at_every_colour(name, colours):
    colours.requires_grad_()
    CONVERSIONS[name][0](colours).sum().backward()
    assert colours.grad.isfinite().all()


@every_conversion
def test_gradients_equal_finite_differences(name):
    rgb = torch.rand(3, 2, 2, dtype=torch.float64) * 0.8 + 0.1
    assert torch.autograd.gradcheck(CONVERSIONS[name][0], rgb.requires_grad_())


@every_conversion
def test_autocast_changes_nothing(name, colours):
    convert = CONVERSIONS[name][0]
    expected = convert(colours)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        converted = convert(colours)
    assert converted.dtype == torch.float32
    assert torch.equal(converted, expected)


@pytest.mark.parametrize("name", COLOR_SPACES)
def test_ranges_are_those_of_all_colours(name):
    space = COLOR_SPACES[name]
    steps = torch.linspace(0, 1, 33)
    cube = torch.cartesian_prod(steps, steps, steps).T.unsqueeze(1)  # the extremes lie on its surface
    planes = space.convert(cube).flatten(1)
    torch.testing.assert_close(planes.amin(1), torch.tensor(space.low), rtol=0, atol=0.01)
    torch.testing.assert_close(planes.amax(1), torch.tensor(space.high), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("space", "view", "channels"),
    [
        ("lab", "L", (0,)),
        ("lab", "ab", (1, 2)),
        ("lab", "ba", (2, 1)),  # in the order that is spelled
        ("lab", "Lab", (0, 1, 2)),
        ("lab", "LL", None),
        ("lab", "l", None),
        ("lab", "xyz", None),
        ("lab", "abc", None),
        ("lab", "", None),
        ("ycbcr", "Y", (0,)),
        ("ycbcr", "CbCr", (1, 2)),
        ("ycbcr", "Cb", (1,)),
        ("ycbcr", "C", None),
        ("rgb", "RGB", (0, 1, 2)),
        ("rgb", "R", (0,)),
        ("rgb", "GB", (1, 2)),
        ("rgb", "xyz", None),
    ],
)
def test_a_view_is_spelled_by_its_channels(space, view, channels):
    assert COLOR_SPACES[space].split(view) == channels
