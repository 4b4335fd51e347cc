import pytest
import torch

from hf_infomax.data import recipes
from hf_infomax.data.augmentations import ColorJitter, GaussianBlur, RandAugment, RandomResizedCrop
from hf_infomax.models.errors import UsageError

SIZE = 32


@pytest.fixture
def batch():
    return torch.randint(0, 256, (16, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


SHAPES = {
    "dim": {"pixel_values": (16, 3, 32, 32)},
    "dim_stl": {"pixel_values": (16, 3, 32, 32)},
    "crop_flip": {"pixel_values": (16, 3, 32, 32)},
    "cmc": {"pixel_values": (16, 3, 32, 32)},
    "cmc_randaugment": {"pixel_values": (16, 3, 32, 32)},
    "instdisc": {"pixel_values": (16, 3, 32, 32)},
    "simclr": {"pixel_values": (16, 2, 3, 32, 32)},
    "moco_v2": {"pixel_values": (16, 2, 3, 32, 32)},
    "pirl": {"pixel_values": (16, 3, 32, 32), "jigsaw_values": (16, 9, 3, 9, 9)},
    "infomin": {"pixel_values": (16, 2, 3, 32, 32), "jigsaw_values": (16, 9, 3, 9, 9)},
}


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_gives_its_views_in_the_unit_range(name, batch):
    views = recipes.load(name, image_size=SIZE)(batch)
    assert {view: tuple(values.shape) for view, values in views.items()} == SHAPES[name]
    for values in views.values():
        assert values.dtype == torch.float32
        assert values.min() >= 0
        assert values.max() <= 1


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_strength_has_one_default(name):
    steps = [step for view in recipes.RECIPES[name].values() for step in view.steps]
    found = {strength for _, arguments in steps for strength in recipes._strengths(arguments.values())}
    assert len(found) == len({strength.name for strength in found})


@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if recipes.strengths_of(name)])
def test_every_strength_changes_the_views(name, batch):
    index = torch.arange(len(batch))
    before = recipes.load(name, image_size=SIZE)(batch, sample_index=index)
    for strength, default in recipes.strengths_of(name).items():
        other = default / 2 if default not in (0, 2, 4) else default + 1
        after = recipes.load(name, image_size=SIZE, **{strength: other})(batch, sample_index=index)
        assert any(not torch.equal(before[view], after[view]) for view in before), strength


def test_the_papers_settings():
    def step(name, kind, view="pixel_values", **strengths):
        branch = recipes.load(name, image_size=224, **strengths).branches[view]
        return next(step for step in branch.steps if isinstance(step, kind))

    assert step("infomin", RandomResizedCrop).scale == (0.2, 1.0)  # Tian et al., C.2: the sweet spot c = 0.2
    assert step("simclr", RandomResizedCrop).scale == (0.08, 1.0)
    assert step("infomin", ColorJitter).strengths == pytest.approx((0.8, 0.8, 0.8, 0.2))  # x = 1
    assert step("infomin", ColorJitter, jitter=0.5).strengths == pytest.approx((0.4, 0.4, 0.4, 0.1))
    assert step("moco_v2", ColorJitter).strengths == pytest.approx((0.4, 0.4, 0.4, 0.1))
    assert step("simclr", GaussianBlur).kernel_size == 23
    assert (step("infomin", RandAugment).layers, step("infomin", RandAugment).magnitude) == (2, 10.0)
    pirl = recipes.load("pirl", image_size=224)
    assert pirl(torch.rand(1, 3, 256, 300))["jigsaw_values"].shape == (1, 9, 3, 64, 64)


def test_two_crops_and_multi_crop(batch):
    assert recipes.load(recipes.two_crops("instdisc"), SIZE)(batch)["pixel_values"].shape == (16, 2, 3, 32, 32)
    views = recipes.load("simclr", SIZE, crops=3, local_crops=4)(batch)
    assert views["pixel_values"].shape == (16, 3, 3, 32, 32)
    assert views["local_values"].shape == (16, 4, 3, 14, 14)
    one, other, _ = views["pixel_values"].unbind(1)
    assert not torch.equal(one, other)
    assert recipes.load("simclr", SIZE, crops=0)(batch)["pixel_values"].shape == (16, 3, 32, 32)


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
    with pytest.raises(UsageError, match="Unknown view recipe 'simlr': choose one of dim, dim_stl, crop_flip"):
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
