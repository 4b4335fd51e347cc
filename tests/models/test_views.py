import pytest
import torch

from hf_infomax.models.colors import COLOR_SPACES
from hf_infomax.models.errors import UsageError
from hf_infomax.models.views import ColorViews


def test_views_are_normalised_channels(dim_config):
    images = torch.rand(2, 3, 5, 5)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    views = ColorViews(dim_config(views=["BR", "G"], image_mean=mean, image_std=std))(images)
    assert list(views) == ["BR", "G"]
    torch.testing.assert_close(views["BR"][:, 0], (images[:, 2] - 0.3) / 0.7)
    torch.testing.assert_close(views["BR"][:, 1], (images[:, 0] - 0.1) / 0.5)
    torch.testing.assert_close(views["G"][:, 0], (images[:, 1] - 0.2) / 0.6)


@pytest.mark.parametrize("space", [name for name in COLOR_SPACES if name != "rgb"])
def test_other_colour_spaces_are_scaled_to_minus_one_to_one(cmc_config, space):
    whole = "".join(COLOR_SPACES[space].channels)
    cube = torch.cartesian_prod(*[torch.linspace(0, 1, 17)] * 3)
    seam = torch.tensor([[1, 0, 1e-6]])  # the red at the other end of the circle of hues
    colours = torch.cat([cube, seam]).T.reshape(1, 3, 1, -1)
    view = ColorViews(cmc_config(color_space=space, views=[whole]))(colours)[whole]
    torch.testing.assert_close(view.amax((0, 2, 3)), torch.ones(3), rtol=0, atol=2e-5)
    torch.testing.assert_close(view.amin((0, 2, 3)), -torch.ones(3), rtol=0, atol=2e-5)


@pytest.mark.parametrize("space", COLOR_SPACES)
def test_every_split_of_a_space_is_two_views(cmc_config, space):
    images = torch.rand(2, 3, 5, 5)
    whole = "".join(COLOR_SPACES[space].channels)
    planes = ColorViews(cmc_config(color_space=space, views=[whole]))(images)[whole]
    for pair in COLOR_SPACES[space].splits:
        views = ColorViews(cmc_config(color_space=space, views=list(pair)))(images)
        assert list(views) == list(pair)
        for name, view in views.items():
            assert torch.equal(view, planes[:, list(COLOR_SPACES[space].split(name))])


def test_several_crops_are_no_image(dim_config):
    with pytest.raises(UsageError, match=r"\(2, 2, 3, 8, 8\), several crops .* set views\.crops=0"):
        ColorViews(dim_config())(torch.rand(2, 2, 3, 8, 8))
