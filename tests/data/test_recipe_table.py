"""The table of recipes holds what the papers say, and InfoMin's augmentations come one by one."""

from itertools import pairwise

import pytest
import torch

from hf_infomax.data import recipes
from hf_infomax.data.augmentations import (
    ColorJitter,
    DistantPatches,
    FrequencySeparation,
    GaussianBlur,
    JigsawPatches,
    RandAugment,
    RandomResizedCrop,
)
from hf_infomax.data.augmentations.photometry import grayscale
from hf_infomax.data.recipe_table import INFOMIN_STEPS, RECIPES
from hf_infomax.models.errors import UsageError

SIZE, COUNT = 16, 300


@pytest.mark.parametrize("name", RECIPES)
def test_a_strength_has_one_default(name):
    steps = [step for view in RECIPES[name].values() for step in view.steps]
    found = {strength for _, arguments in steps for strength in recipes._strengths(arguments.values())}
    assert len(found) == len({strength.name for strength in found})


def step(name, kind, view="pixel_values", **strengths):
    branch = recipes.load(name, image_size=224, **strengths).branches[view]
    return next(step for step in branch.steps if isinstance(step, kind))


def test_the_papers_settings():
    assert step("infomin", RandomResizedCrop).scale == (0.2, 1.0)  # Tian et al., C.2: the sweet spot c = 0.2
    assert step("simclr", RandomResizedCrop).scale == (0.08, 1.0)
    assert step("infomin", ColorJitter).strengths == pytest.approx((0.8, 0.8, 0.8, 0.2))  # x = 1
    assert step("infomin", ColorJitter, jitter=0.5).strengths == pytest.approx((0.4, 0.4, 0.4, 0.1))
    assert step("moco_v2", ColorJitter).strengths == pytest.approx((0.4, 0.4, 0.4, 0.1))
    assert step("simclr", GaussianBlur).kernel_size == 23
    assert (step("infomin", RandAugment).layers, step("infomin", RandAugment).magnitude) == (2, 10.0)
    pirl = recipes.load("pirl", image_size=224)
    assert pirl(torch.rand(1, 3, 256, 300))["jigsaw_values"].shape == (1, 9, 3, 64, 64)


@pytest.mark.parametrize("name", ["pirl", "infomin"])
def test_a_jigsaw_is_shuffled(name):
    assert step(name, JigsawPatches, view="jigsaw_values").shuffled


def test_pairs():
    assert (step("patches", DistantPatches).size, step("patches", DistantPatches, distance=384).distance) == (224, 384)
    assert step("frequency", FrequencySeparation, sigma=0.7).sigma == 0.7
    assert step("frequency", RandomResizedCrop).scale == (0.08, 1.0)


@pytest.mark.parametrize(
    ("strength", "values"),
    [("jitter", (0.0, 0.125, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5)), ("crop", (0.08, 0.2, 0.3, 0.5, 0.8, 1.0))],
)
def test_strengths_slide_as_far_as_in_the_paper(strength, values):
    """Tian et al., C.2, Figures 5 and 6."""
    images, index, seen = torch.rand(4, 3, 20, 20), torch.arange(4), []
    for value in values:
        views = recipes.load("infomin", SIZE, **{strength: value})(images, sample_index=index)
        assert all(view.isfinite().all() for view in views.values())
        seen.append(views["pixel_values"])
    assert all(not torch.equal(one, other) for one, other in pairwise(seen))


def test_a_hue_beyond_half_the_circle_is_refused():
    with pytest.raises(UsageError, match=r"the hue's jitter is 0\.52 of the circle: give at most 0\.5"):
        recipes.load("infomin", SIZE, jitter=2.6)


# --- step by step


def views_of(name):
    images = torch.rand(COUNT, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(images, (20, 20), mode="bilinear")
    return recipes.load("infomin", SIZE, **INFOMIN_STEPS[name])(images, sample_index=torch.arange(COUNT))


def same(one, other):
    """(2 COUNT,): which crops are what they were."""
    return (one["pixel_values"] == other["pixel_values"]).flatten(2).all(2).flatten()


def test_steps_are_named_in_their_order():
    assert list(INFOMIN_STEPS) == ["crop", "jitter", "blur", "randaugment", "grayscale", "jigsaw"]
    assert INFOMIN_STEPS["jigsaw"] == {}  # the recipe as it is
    assert INFOMIN_STEPS["blur"] == {"layers": 0, "grayscale": 0.0, "leave_out": ["jigsaw_values"]}


def test_the_first_step_is_crops_and_flips_alone():
    images, index = torch.rand(8, 3, 20, 20), torch.arange(8)
    plain = recipes.load(recipes.two_crops("cmc"), SIZE, crop=0.2)(images, sample_index=index)
    first = recipes.load("infomin", SIZE, **INFOMIN_STEPS["crop"])(images, sample_index=index)
    assert set(first) == {"pixel_values"}
    torch.testing.assert_close(first["pixel_values"], plain["pixel_values"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("before", "after", "least", "most"),
    [("crop", "jitter", 0.15, 0.25), ("jitter", "blur", 0.4, 0.6), ("blur", "randaugment", 0.2, 0.5)],
)
def test_a_step_changes_the_crops_that_it_is_drawn_for_and_no_others(before, after, least, most):
    one, other = views_of(before), views_of(after)
    assert set(one) == set(other) == {"pixel_values"}
    assert least < same(one, other).float().mean() < most  # where the step is not drawn, nothing else has changed


def test_the_step_of_colour_dropping_makes_greys_of_what_was_there():
    one, other = views_of("randaugment"), views_of("grayscale")
    kept = same(one, other)
    assert 0.75 < kept.float().mean() < 0.87
    expected = grayscale(one["pixel_values"].flatten(0, 1)[~kept]).expand(-1, 3, -1, -1)
    torch.testing.assert_close(other["pixel_values"].flatten(0, 1)[~kept], expected, atol=1e-6, rtol=0)


def test_the_step_of_the_jigsaw_adds_a_view():
    one, other = views_of("grayscale"), views_of("jigsaw")
    assert same(one, other).all()
    assert set(other) - set(one) == {"jigsaw_values"}


def test_a_step_can_be_slid():
    views = recipes.load("infomin", SIZE, **INFOMIN_STEPS["jitter"], jitter=2.5, crop=0.08, crops=0)
    assert views(torch.rand(2, 3, 20, 20))["pixel_values"].shape == (2, 3, 16, 16)
