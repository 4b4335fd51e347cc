import numpy as np
import pytest
import skimage.color
import skimage.data
import torch
from skimage.color.colorconv import xyz_from_rgb

from hf_infomax.models import colors
from hf_infomax.models.colors import COLOR_SPACES


def linear_rgb(rgb, channel_axis):
    """What scikit-image does on the way to XYZ, of which it has no function of its own."""
    xyz = np.moveaxis(skimage.color.rgb2xyz(rgb, channel_axis=channel_axis), channel_axis, -1)
    return np.moveaxis(xyz @ np.linalg.inv(xyz_from_rgb).T, -1, channel_axis)


PEERS = {name: getattr(skimage.color, f"rgb2{name}") for name in ("xyz", "lab", "ycbcr", "ydbdr", "yuv", "hsv", "hed")}
PEERS["linear_rgb"] = linear_rgb

CORNERS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)  # black, white and the saturated colours

every_conversion = pytest.mark.parametrize("name", PEERS)
every_space = pytest.mark.parametrize("name", COLOR_SPACES)


@pytest.fixture
def colours():
    """(3, 1, N): corners, edges and greys of the cube, the straight parts of the curves, and many others."""
    one = torch.linspace(0, 1, 52)
    greys = one[:, None].expand(-1, 3)
    surface = torch.cartesian_prod(one, one[::3], torch.tensor([0.0, 1.0]))
    surface = torch.cat([surface, surface.roll(1, dims=1), surface.roll(2, dims=1)])
    dark = 0.05 * torch.rand(500, 3)
    knees = torch.tensor([0.04045, 0.0088565, 1e-6])[:, None].expand(-1, 3)
    many = torch.cat([CORNERS, greys, greys / 10, surface, dark, knees, torch.rand(2_000, 3)])
    return many.T.unsqueeze(1)


def assert_equals_peer(name, rgb):
    """Within 1e-5 of each channel's range."""
    space = COLOR_SPACES[name]
    ours = space.convert(rgb)
    theirs = PEERS[name](rgb.double().numpy(), channel_axis=-3)
    span = torch.tensor(space.high) - torch.tensor(space.low)
    assert ours.dtype == torch.float32
    assert ours.shape == rgb.shape
    error = (ours.double() - torch.from_numpy(theirs)).abs() / span[:, None, None]
    assert error.max() < 1e-5


@every_conversion
def test_every_conversion_is_a_space(name):
    assert COLOR_SPACES[name].convert is getattr(colors, f"rgb_to_{name}")


@every_conversion
def test_equals_scikit_image(name, colours):
    assert_equals_peer(name, colours)


@every_conversion
@pytest.mark.parametrize("photograph", ["astronaut", "coffee", "immunohistochemistry"])
def test_equals_scikit_image_on_photographs(name, photograph):
    pixels = getattr(skimage.data, photograph)()[::4, ::4]  # (H, W, 3), and so in memory what a decoder leaves
    assert_equals_peer(name, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


@every_conversion
def test_acts_on_the_third_dimension_from_the_end(name):
    images = torch.rand(2, 4, 3, 5, 6)
    assert_equals_peer(name, images)
    convert = COLOR_SPACES[name].convert
    torch.testing.assert_close(convert(images)[1, 2], convert(images[1, 2]), rtol=1e-5, atol=1e-5)


@every_conversion
def test_channels_last_changes_nothing(name):
    images = torch.rand(2, 3, 8, 8)
    convert = COLOR_SPACES[name].convert
    turned = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(convert(turned), convert(images), rtol=1e-5, atol=1e-5)


@every_conversion
def test_the_input_is_left_alone(name, colours):
    before = colours.clone()
    COLOR_SPACES[name].convert(colours)
    assert torch.equal(colours, before)


@every_conversion
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_gradients_are_finite_at_every_colour(name, channel, colours):
    colours.requires_grad_()
    COLOR_SPACES[name].convert(colours)[channel].sum().backward()
    assert colours.grad.isfinite().all()


@every_conversion
def test_gradients_equal_finite_differences(name):
    steps = torch.arange(1, 5, dtype=torch.float64) / 100  # four pixels, none of them near a tie of channels or a knee
    for order in torch.tensor([[0.2, 0.5, 0.8], [0.8, 0.2, 0.5], [0.5, 0.8, 0.2], [0.01, 0.05, 0.12]]).double():
        rgb = (order[:, None] * (1 + steps)).unsqueeze(1).requires_grad_()
        assert torch.autograd.gradcheck(COLOR_SPACES[name].convert, rgb)


@pytest.mark.parametrize("name", ["linear_rgb", "xyz", "lab"])
def test_gradients_do_not_jump_at_the_knees(name):
    """Of the power and of the line that goes on from it, each has a part in no more than one."""
    at = torch.tensor([0.04045, 0.0903918]).double()  # of the gamma, and the sRGB grey whose Y is (6 / 29)^3
    slopes = []
    for grey in (at - 1e-6, at, at + 1e-6):
        rgb = grey.expand(3, 1, 2).clone().requires_grad_()
        COLOR_SPACES[name].convert(rgb).sum().backward()
        slopes.append(rgb.grad)
    for slope in slopes[1:]:
        torch.testing.assert_close(slope, slopes[0], rtol=0.05, atol=0)


@every_conversion
def test_autocast_changes_nothing(name, colours):
    convert = COLOR_SPACES[name].convert
    expected = convert(colours)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        converted = convert(colours)
    assert converted.dtype == torch.float32
    assert torch.equal(converted, expected)


@every_conversion
def test_greys_have_no_colour(name):
    greys = torch.linspace(0, 1, 256).expand(3, 1, -1)
    first, second, third = COLOR_SPACES[name].convert(greys)
    expected = {  # of the second and the third channel; where None, they grow with the first
        "lab": (0, 0),
        "ycbcr": (128, 128),
        "ydbdr": (0, 0),
        "yuv": (0, 0),
    }.get(name)
    if expected:
        assert (second - expected[0]).abs().max() < 0.01
        assert (third - expected[1]).abs().max() < 0.01
    elif name == "hsv":
        assert torch.equal(torch.stack([first, second, third]), torch.stack([0 * third, 0 * third, greys[0]]))
    elif name == "hed":
        assert first.diff().max() <= 0  # stains take light away
    else:
        assert all(plane.diff().min() > 0 for plane in (first, second, third))


def test_hue_is_an_angle():
    """Six colours around the circle, a sixth apart, whatever their saturation and value; red is at both ends."""
    turn = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1.0], [1, 0, 1e-6]])
    expected = torch.tensor([0, 1, 2, 3, 4, 5, 6]) / 6
    for rgb in (turn, 0.3 * turn, 0.4 + 0.6 * turn):
        hue = colors.rgb_to_hsv(rgb.T.unsqueeze(1))[0, 0]
        torch.testing.assert_close(hue, expected, rtol=0, atol=1e-6)


@every_space
def test_ranges_are_those_of_all_colours(name):
    space = COLOR_SPACES[name]
    steps = torch.linspace(0, 1, 33)
    cube = torch.cartesian_prod(steps, steps, steps)  # the extremes lie on its surface
    seam = torch.tensor([[1, 0, 1e-6]])  # the red whose hue is next to 1
    planes = space.convert(torch.cat([cube, seam]).T.unsqueeze(1)).flatten(1)
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    torch.testing.assert_close((planes.amin(1) - low) / (high - low), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close((planes.amax(1) - low) / (high - low), torch.ones(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "view", "channels"),
    [
        ("lab", "L", (0,)),
        ("lab", "ab", (1, 2)),
        ("lab", "ba", (2, 1)),  # in the order that is spelled
        ("lab", "Lb", (0, 2)),
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
        ("ydbdr", "DbDr", (1, 2)),
        ("ydbdr", "D", None),
        ("yuv", "UV", (1, 2)),
        ("hsv", "SV", (1, 2)),
        ("hed", "HE", (0, 1)),
        ("xyz", "XZ", (0, 2)),
        ("rgb", "RGB", (0, 1, 2)),
        ("rgb", "R", (0,)),
        ("rgb", "GB", (1, 2)),
        ("rgb", "xyz", None),
        ("linear_rgb", "GB", (1, 2)),
    ],
)
def test_a_view_is_spelled_by_its_channels(space, view, channels):
    assert COLOR_SPACES[space].split(view) == channels


@every_space
def test_splits_are_complementary(name):
    space = COLOR_SPACES[name]
    assert len(space.splits) == 3
    for view, rest in space.splits:
        assert sorted(space.split(view) + space.split(rest)) == [0, 1, 2]
    assert len({frozenset(space.split(view)) for view, _ in space.splits}) == 3


def test_splits_are_spelled():
    assert COLOR_SPACES["lab"].splits == [("L", "ab"), ("a", "Lb"), ("b", "La")]
    assert COLOR_SPACES["ydbdr"].splits == [("Y", "DbDr"), ("Db", "YDr"), ("Dr", "YDb")]
