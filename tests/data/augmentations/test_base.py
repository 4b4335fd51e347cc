"""What all augmentations share: types, inputs left alone, extremes, and one result however they are run."""

import pytest
import torch

from hf_infomax.data.augmentations import (
    Augmentation,
    ColorDropping,
    ColorJitter,
    Draws,
    GaussianBlur,
    GeometricAugmentation,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    RandomGrayscale,
    RandomResizedCrop,
    Sample,
    Solarize,
)
from hf_infomax.data.augmentations.base import on_some

BATCH = 24
MODULES = {
    "resized crop": RandomResizedCrop(16),
    "resized crop, large": RandomResizedCrop(64),
    "crop": RandomCrop(16, padding=2),
    "flip": HorizontalFlip(),
    "jitter": ColorJitter(0.8, 0.8, 0.8, 0.2, probability=0.7),
    "jitter without hue": ColorJitter(0.8, 0.8, 0.8),
    "grayscale": RandomGrayscale(0.4),
    "dropping": ColorDropping(0.4),
    "blur": GaussianBlur(5, probability=0.6),
    "solarize": Solarize(0.5, 0.6),
}
every_module = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)


def draws(seed=0, batch=BATCH):
    return Draws.of(seed, 0, torch.arange(batch))


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (BATCH, 3, 18, 20), dtype=torch.uint8)


@every_module
def test_bytes_are_the_floats_rounded_once(module, pixels):
    floats, rounded = module(pixels / 255, draws()), module(pixels, draws())
    assert floats.dtype == torch.float32
    assert rounded.dtype == torch.uint8
    assert floats.shape == rounded.shape
    assert floats.min() >= 0
    assert floats.max() <= 1 + 1e-6
    assert (floats * 255 - rounded).abs().max() <= 0.5 + 1e-3


@every_module
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_type_that_comes_goes(module, dtype, pixels):
    images = (pixels / 255).to(dtype)
    changed = module(images, draws())
    assert changed.dtype == dtype
    assert torch.equal(changed, module(images.float(), draws()).to(dtype))  # rounded once, at the end


@every_module
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_input_is_left_alone(module, dtype, pixels):
    images = pixels if dtype == torch.uint8 else pixels / 255
    before = images.clone()
    changed = module(images, draws())
    assert torch.equal(images, before)
    changed.fill_(0)
    assert torch.equal(images, before)  # not a view of it either


@every_module
def test_an_image_is_changed_by_its_own_numbers_alone(module, pixels):
    images = pixels / 255
    together = module(images, draws())
    assert torch.equal(module(images, draws()), together)
    assert not torch.equal(module(images, draws(seed=1)), together)
    alone = [module(images[place : place + 1], draws().select(slice(place, place + 1))) for place in range(BATCH)]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-6, rtol=0)


@every_module
def test_without_draws_torchs_generator_decides(module, pixels):
    def drawn(seed):
        torch.manual_seed(seed)
        return module(pixels)

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


@pytest.mark.parametrize(
    ("name", "bytes_too"),
    [(name, name == "flip") for name in MODULES if name not in ("resized crop, large", "jitter without hue")],
)
def test_the_same_when_compiled(name, bytes_too, pixels):
    """Compiled, as on an accelerator, all images are computed and the chosen taken; and nothing breaks the graph."""
    module, keys = MODULES[name], draws().keys
    torch._dynamo.reset()
    compiled = torch.compile(lambda images, keys: module(images, Draws(keys)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pixels / 255, keys), module(pixels / 255, draws()), atol=2e-6, rtol=0)
    if bytes_too:
        assert torch.equal(compiled(pixels, keys), module(pixels, draws()))


@pytest.mark.parametrize(
    "never",
    [
        HorizontalFlip(0.0),
        ColorJitter(0.8, 0.8, 0.8, 0.2, probability=0.0),
        ColorJitter(),
        RandomGrayscale(0.0),
        ColorDropping(0.0),
        GaussianBlur(3, probability=0.0),
        GaussianBlur(1),
        Solarize(probability=0.0),
        RandomCrop(18),
        RandomResizedCrop(18, (1.0, 1.0), (1.0, 1.0)),
    ],
    ids=repr,
)
def test_what_changes_nothing(never, pixels):
    pixels = pixels[..., :18]
    assert torch.equal(never(pixels, draws()), pixels)


@pytest.mark.parametrize(
    ("always", "expected"),
    [
        (HorizontalFlip(1.0), lambda images: images.flip(-1)),
        (Solarize(0.0), lambda images: 1 - images),
        (
            RandomGrayscale(1.0),
            lambda images: torch.einsum("bchw,c->bhw", images, torch.tensor([0.2989, 0.587, 0.114])),
        ),
    ],
    ids=["flip", "solarize", "grayscale"],
)
def test_what_always_happens(always, expected, pixels):
    expected = expected(pixels / 255)
    expected = expected if expected.ndim == 4 else expected[:, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(always(pixels / 255, draws()), expected, atol=1e-6, rtol=0)


def test_on_some_computes_the_chosen_alone():
    seen = []

    def change(images, amount):
        seen.append(len(images))
        return images + amount.view(-1, 1, 1, 1)

    images, amount = torch.zeros(4, 1, 1, 1), torch.tensor([1.0, 2.0, 3.0, 4.0])
    changed = on_some(images, torch.tensor([True, False, False, True]), change, amount)
    assert changed.flatten().tolist() == [1, 0, 0, 4]
    on_some(images, torch.zeros(4, dtype=torch.bool), change, amount)
    assert seen == [2]


def test_colours_leave_the_other_columns_and_take_bytes_to_the_unit_range(pixels):
    depth = torch.rand(BATCH, 1, 18, 20)
    sample = Sample(pixels, {"depth": depth}, {"depth": "values"}, white=255.0)
    changed = GaussianBlur(3).transform(sample, draws())
    assert changed.white == 1
    assert changed.columns["depth"] is depth
    torch.testing.assert_close(changed.images, GaussianBlur(3)(pixels / 255, draws()))


def test_what_is_drawn_for_a_sample_is_what_is_drawn_for_its_images(pixels):
    for module in MODULES.values():
        sample = module.transform(Sample(pixels / 255), draws())
        torch.testing.assert_close(sample.images, module(pixels / 255, draws()), atol=1e-6, rtol=0)


def test_arguments_are_shown():
    shown = {repr(module) for module in MODULES.values()}
    assert len(shown) == len(MODULES)
    assert "GaussianBlur(kernel_size=5, sigma=(0.1, 2.0), probability=0.6)" in shown


def test_kinds():
    assert all(isinstance(MODULES[name], GeometricAugmentation) for name in ("resized crop", "crop", "flip"))
    assert not isinstance(MODULES["blur"], GeometricAugmentation)
    with pytest.raises(NotImplementedError):
        Augmentation()(torch.rand(1, 3, 2, 2))
    with pytest.raises(NotImplementedError):
        GeometricAugmentation()(torch.rand(1, 3, 2, 2))
    assert Normalize((0.5,), (0.5,))(torch.full((1, 3, 1, 1), 0.75)).eq(0.5).all()
