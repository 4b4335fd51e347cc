import pytest
import torch

from hf_infomax.data import recipes
from hf_infomax.models.errors import UsageError

SIZE = 32


def images(side=SIZE):
    return torch.randint(0, 256, (16, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def batch():
    return images()


@pytest.fixture
def source(name):
    """Images that a recipe can be given: its patches are cut from larger ones."""
    return images(3 * SIZE + 1 if name == "patches" else SIZE)


SHAPES = {
    "dim": {"pixel_values": (16, 3, 32, 32)},
    "dim_stl": {"pixel_values": (16, 3, 32, 32)},
    "dim_occluded": {"pixel_values": (16, 3, 32, 32), "occluded_values": (16, 3, 32, 32)},
    "dim_stl_occluded": {"pixel_values": (16, 3, 32, 32), "occluded_values": (16, 3, 32, 32)},
    "crop_flip": {"pixel_values": (16, 3, 32, 32)},
    "cmc": {"pixel_values": (16, 3, 32, 32)},
    "cmc_randaugment": {"pixel_values": (16, 3, 32, 32)},
    "instdisc": {"pixel_values": (16, 3, 32, 32)},
    "simclr": {"pixel_values": (16, 2, 3, 32, 32)},
    "moco_v2": {"pixel_values": (16, 2, 3, 32, 32)},
    "pirl": {"pixel_values": (16, 3, 32, 32), "jigsaw_values": (16, 9, 3, 9, 9)},
    "infomin": {"pixel_values": (16, 2, 3, 32, 32), "jigsaw_values": (16, 9, 3, 9, 9)},
    "patches": {"pixel_values": (16, 2, 3, 32, 32)},
    "frequency": {"pixel_values": (16, 2, 3, 32, 32)},
}


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_gives_its_views_in_the_unit_range(name, source):
    views = recipes.load(name, image_size=SIZE)(source)
    assert {view: tuple(values.shape) for view, values in views.items()} == SHAPES[name]
    for values in views.values():
        assert values.dtype == torch.float32
        assert values.min() >= 0
        assert values.max() <= 1


@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if recipes.strengths_of(name)])
def test_every_strength_changes_the_views(name, source):
    index = torch.arange(len(source))
    before = recipes.load(name, image_size=SIZE)(source, sample_index=index)
    for strength, default in recipes.strengths_of(name).items():
        other = default / 2 if default not in (0, 2, 4) else default + 1
        after = recipes.load(name, image_size=SIZE, **{strength: other})(source, sample_index=index)
        assert any(not torch.equal(before[view], after[view]) for view in before), strength


def test_two_crops_and_multi_crop(batch):
    assert recipes.load(recipes.two_crops("instdisc"), SIZE)(batch)["pixel_values"].shape == (16, 2, 3, 32, 32)
    views = recipes.load("simclr", SIZE, crops=3, local_crops=4)(batch)
    assert views["pixel_values"].shape == (16, 3, 3, 32, 32)
    assert views["local_values"].shape == (16, 4, 3, 14, 14)
    one, other, _ = views["pixel_values"].unbind(1)
    assert not torch.equal(one, other)
    assert recipes.load("simclr", SIZE, crops=0)(batch)["pixel_values"].shape == (16, 3, 32, 32)


@pytest.mark.parametrize("given", [["jigsaw_values"], ("jigsaw_values",), "jigsaw_values"])
def test_a_view_that_is_left_out_changes_nothing_else(given, batch):
    index = torch.arange(len(batch))
    whole = recipes.load("infomin", SIZE)(batch, sample_index=index)
    part = recipes.load("infomin", SIZE, leave_out=given)(batch, sample_index=index)
    assert set(part) == {"pixel_values"}
    assert torch.equal(part["pixel_values"], whole["pixel_values"])
    local = recipes.load("simclr", SIZE, local_crops=2, leave_out=["local_values"])
    assert set(local.branches) == {"pixel_values"}


@pytest.mark.parametrize(
    ("name", "leave_out", "sentence"),
    [
        ("infomin", ["jigsaw"], "'infomin' cannot leave out 'jigsaw': choose one of jigsaw_values"),
        ("pirl", ["pixel_values"], "cannot leave out 'pixel_values': choose one of jigsaw_values"),
        ("simclr", ["jigsaw_values"], "it has no view besides pixel_values"),
    ],
)
def test_only_what_a_recipe_has_can_be_left_out(name, leave_out, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        recipes.load(name, SIZE, leave_out=leave_out)
    assert "\n" not in str(caught.value)


def test_the_strengths_of_a_view_go_with_it():
    with pytest.raises(UsageError, match="no strength 'jigsaw_crop'"):
        recipes.load("infomin", SIZE, leave_out=["jigsaw_values"], jigsaw_crop=0.5)


@pytest.mark.parametrize("options", [{"crops": 2}, {"crops": 1}, {"local_crops": 2}])
def test_a_pair_takes_no_number_of_crops(options):
    with pytest.raises(UsageError, match="makes 2 views of every image already: leave out the number of crops"):
        recipes.load("frequency", SIZE, **options)
    with pytest.raises(UsageError, match=r"makes 2 views|begins with a random resized crop"):
        recipes.load("patches", SIZE, **options)
    assert recipes.load("frequency", SIZE, crops=0)(images())["pixel_values"].shape == (16, 2, 3, 32, 32)


def test_pairs_are_what_their_strengths_say():
    large = images(96)
    one, other = recipes.load("patches", SIZE, distance=0)(large)["pixel_values"].unbind(1)
    assert torch.equal(one, other)
    one, other = recipes.load("patches", SIZE, distance=10)(large)["pixel_values"].unbind(1)
    assert torch.equal(one[..., 10:, 10:], other[..., :-10, :-10])
    index = torch.arange(16)
    low, high = recipes.load("frequency", SIZE, sigma=0.7)(large, sample_index=index)["pixel_values"].unbind(1)
    cropped = recipes.load("cmc", SIZE)(large, sample_index=index)["pixel_values"]
    torch.testing.assert_close(low + 2 * high - 1, cropped, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("again", "sentence"),
    [
        (["pixel_values"], "'pixel_values' already"),
        (["jigsaw_values"], "'jigsaw_values' already"),
        (["depth"], "'depth' already"),
        (["second", "second"], "'second' already"),
        (["present"], "'present' already"),
        (["second crop"], "'second crop' cannot be the name of a view"),
        (["values"], "'values' cannot be the name of a view"),
    ],
)
def test_a_further_view_needs_a_name_of_its_own(again, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        recipes.load("pirl", SIZE, again=again, columns={"depth": "values"})
    assert "\n" not in str(caught.value)


def test_one_further_view_needs_no_list(batch):
    assert set(recipes.load("cmc", SIZE, again="second_crop")(batch)) == {"pixel_values", "second_crop"}


def test_strengths_are_passed_on(batch):
    still = recipes.load("crop_flip", image_size=SIZE, padding=0, flip=0)
    assert torch.equal(still(batch)["pixel_values"], batch.float() / 255)
    mirrored = recipes.load("crop_flip", image_size=SIZE, padding=0, flip=1)
    assert torch.equal(mirrored(batch)["pixel_values"], batch.flip(-1).float() / 255)


def test_unknown_names():
    with pytest.raises(UsageError, match="Unknown view recipe 'simlr': choose one of dim, dim_stl, dim_occluded"):
        recipes.load("simlr", image_size=8)
    with pytest.raises(UsageError, match="'crop_flip' has no strength 'pad': choose one of padding, flip"):
        recipes.load("crop_flip", image_size=8, pad=2)
    with pytest.raises(UsageError, match="'dim' has no strength 'flip': it has none"):
        recipes.load("dim", image_size=8, flip=0.5)
    with pytest.raises(UsageError, match="begins with a random resized crop"):
        recipes.load("dim", image_size=8, local_crops=2)
    with pytest.raises(UsageError, match="crops"):
        recipes.multi_crop("simclr", crops=0)
    with pytest.raises(UsageError, match=r"area of a crop is between 1\.5 and 1"):
        recipes.load("simclr", image_size=8, crop=1.5)


@pytest.mark.parametrize("name", ["dim_occluded", "dim_stl_occluded"])
def test_an_occluded_view_is_of_the_very_crop_that_is_seen_whole(name):
    side = 40 if "stl" in name else SIZE  # the former crops
    views = recipes.load(name, SIZE, block=8)(torch.rand(16, 3, side, side), sample_index=torch.arange(16))
    hidden = (views["occluded_values"] == 0.5).all(1, keepdim=True)
    assert torch.equal(views["occluded_values"].where(~hidden, 0.0), views["pixel_values"].where(~hidden, 0.0))
    assert hidden.flatten(1).sum(1).ge(64).all()


def test_an_occluded_view_of_several_crops_is_refused():
    with pytest.raises(UsageError, match="'occluded_values' is made of one crop, and 'pixel_values' has several"):
        recipes.load("dim_occluded", SIZE, crops=2)
