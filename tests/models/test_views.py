import pytest
import torch

from hf_infomax.models.colors import COLOR_SPACES
from hf_infomax.models.errors import UsageError
from hf_infomax.models.views import Views


def test_views_are_normalised_channels(dim_config):
    images = torch.rand(2, 3, 5, 5)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    views = Views(dim_config(views=["BR", "G"], image_mean=mean, image_std=std))(images)
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
    view = Views(cmc_config(color_space=space, views=[whole]))(colours)[whole]
    torch.testing.assert_close(view.amax((0, 2, 3)), torch.ones(3), rtol=0, atol=2e-5)
    torch.testing.assert_close(view.amin((0, 2, 3)), -torch.ones(3), rtol=0, atol=2e-5)


@pytest.mark.parametrize("space", COLOR_SPACES)
def test_every_split_of_a_space_is_two_views(cmc_config, space):
    images = torch.rand(2, 3, 5, 5)
    whole = "".join(COLOR_SPACES[space].channels)
    planes = Views(cmc_config(color_space=space, views=[whole]))(images)[whole]
    for pair in COLOR_SPACES[space].splits:
        views = Views(cmc_config(color_space=space, views=list(pair)))(images)
        assert list(views) == list(pair)
        for name, view in views.items():
            assert torch.equal(view, planes[:, list(COLOR_SPACES[space].split(name))])


def test_several_crops_are_no_image(dim_config):
    with pytest.raises(UsageError, match=r"\(2, 2, 3, 8, 8\), several crops .* set views\.crops=0"):
        Views(dim_config())(torch.rand(2, 2, 3, 8, 8))


@pytest.fixture
def several(cmc_config):
    columns = {"depth": {"mean": 3.0, "std": 2.0}, "semantic": {"classes": 3}, "later": {"like": "ab"}, "unused": {}}
    return Views(cmc_config(views=["L", "ab", "depth", "semantic", "later"], columns=columns))


@pytest.fixture
def batch():
    maps = {
        "depth": torch.rand(4, 1, 8, 8),
        "semantic": torch.tensor([0, 2, 255, 1]).view(4, 1, 1, 1).expand(4, 1, 8, 8),
    }
    return {"pixel_values": torch.rand(4, 3, 8, 8), "later": torch.rand(4, 3, 8, 8), **maps}


def test_columns_are_scaled_or_spread_over_classes(several, batch):
    shown = several(**batch, sample_index=torch.arange(4))
    assert {name: view.shape[1] for name, view in shown.items()} == {
        "L": 1,
        "ab": 2,
        "depth": 1,
        "semantic": 3,
        "later": 2,
    }
    torch.testing.assert_close(shown["depth"], (batch["depth"] - 3) / 2)
    assert shown["semantic"][:, :, 0, 0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]  # 255: unlabelled
    assert torch.equal(shown["later"], several(batch["later"], ["ab"])["ab"])
    assert several.encoders["later"] == "ab"


def test_views_are_read_as_they_are_wanted(several, batch):
    assert list(several(batch["pixel_values"], ["ab"])) == ["ab"]
    assert list(several(None, ["depth"], depth=batch["depth"])) == ["depth"]


def test_a_batch_that_does_not_fit_is_one_sentence(several, batch):
    cases = [
        (
            {"depth": None},
            r"^The view 'depth' needs 'depth', and the batch has pixel_values, .*: .* data\.columns\), or leave",
        ),
        ({"pixel_values": None}, r"^The view 'L' needs pixel_values, and the batch has later, "),
        (
            {"depth": batch["depth"][:3]},
            r"^The views 'L' and 'depth' do not belong together, with 4 and 3 samples: give both",
        ),
        (
            {"depth": batch["depth"][..., :4]},
            r"^The views 'L' and 'depth' do not belong together, with 8x8 and 8x4 pixels",
        ),
        (
            {"depth": batch["depth"].expand(-1, 2, -1, -1)},
            r"^The view 'depth' must be \(batch, 1, height, width\), but has",
        ),
    ]
    for changes, sentence in cases:
        with pytest.raises(UsageError, match=sentence):
            several(
                **{
                    name: value
                    for name, value in (batch | changes).items()
                    if value is not None or name == "pixel_values"
                }
            )
    with pytest.raises(UsageError, match="Unknown view 'b': choose one of L, ab, depth, semantic, later"):
        several(batch["pixel_values"], ["b"])


def test_mistaken_columns_are_one_sentence(cmc_config):
    with pytest.raises(
        UsageError, match=r"Unknown key of model\.columns\.depth 'chanels': choose one of channels, mean"
    ):
        Views(cmc_config(views=["L", "depth"], columns={"depth": {"chanels": 1}}))
    with pytest.raises(UsageError, match="Unknown view that 'later' is like 'RGB': choose one of L"):
        Views(cmc_config(views=["L", "later"], columns={"later": {"like": "RGB"}}))
