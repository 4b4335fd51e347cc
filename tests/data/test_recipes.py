import pytest
import torch

from hf_infomax.data import recipes
from hf_infomax.models.errors import UsageError


@pytest.fixture
def batch():
    return torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_dim_sees_the_image_as_it_is(batch):
    views = recipes.load("dim", image_size=8)(batch)
    assert set(views) == {"pixel_values"}
    assert views["pixel_values"].dtype == torch.float32
    assert torch.equal((views["pixel_values"] * 255).round().to(torch.uint8), batch)
    assert recipes.load("dim", image_size=8)(torch.full_like(batch, 255))["pixel_values"].max() == 1.0


def test_floating_point_is_taken_as_it_is(batch):
    unit = batch.double() / 255
    views = recipes.load("dim", image_size=8)(unit)["pixel_values"]
    assert views.dtype == torch.float32
    assert torch.equal(views, unit.float())
    with pytest.raises(UsageError, match=r"torch\.int64"):
        recipes.load("dim", image_size=8)(batch.long())


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_gives_views_in_the_unit_range(name, batch):
    views = recipes.load(name, image_size=8)(batch)["pixel_values"]
    assert views.shape == (16, 3, 8, 8)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_strength_names_are_unique_within_a_recipe(name):
    names = [strength for defaults in recipes.RECIPES[name].values() for strength in defaults]
    assert len(names) == len(set(names))


def test_crop_flip_is_deterministic_under_a_seed(batch):
    views = recipes.load("crop_flip", image_size=8)

    def drawn(seed):
        torch.manual_seed(seed)
        return views(batch)["pixel_values"]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))

    by_generator = [views(batch, generator=torch.Generator().manual_seed(5))["pixel_values"] for _ in range(2)]
    assert torch.equal(*by_generator)


def test_a_generator_leaves_the_global_one_alone(batch):
    before = torch.get_rng_state()
    recipes.load("crop_flip", image_size=8)(batch, generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_strengths_are_passed_on(batch):
    still = recipes.load("crop_flip", image_size=8, padding=0, flip=0)
    assert torch.equal(still(batch)["pixel_values"], batch.float() / 255)
    mirrored = recipes.load("crop_flip", image_size=8, padding=0, flip=1)
    assert torch.equal(mirrored(batch)["pixel_values"], batch.flip(-1).float() / 255)


def test_compiled_as_one_graph(batch):
    views = recipes.load("crop_flip", image_size=8)
    compiled = torch.compile(views, backend="aot_eager", fullgraph=True)
    torch.manual_seed(0)
    expected = views(batch)["pixel_values"]
    torch.manual_seed(0)
    assert torch.equal(compiled(batch)["pixel_values"], expected)


def test_unknown_names():
    with pytest.raises(UsageError, match="no view recipe 'simlr': choose one of dim, crop_flip"):
        recipes.load("simlr", image_size=8)
    with pytest.raises(UsageError, match="'crop_flip' has no strength 'pad': choose one of padding, flip"):
        recipes.load("crop_flip", image_size=8, pad=2)
    with pytest.raises(UsageError, match="'dim' has no strength 'flip': it has none"):
        recipes.load("dim", image_size=8, flip=0.5)


def test_images_of_another_size(batch):
    with pytest.raises(UsageError, match="8x8 pixels and 16x16 were asked for"):
        recipes.load("dim", image_size=16)(batch)
