"""RandAugment equals timm's: every operation on pixels, and every choice in distribution."""

import math
import random

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data import auto_augment
from torchvision.transforms import functional as TF

from hf_infomax.data.augmentations import Draws, RandAugment, Sample
from hf_infomax.data.augmentations.randaugment import Operations
from hf_infomax.models.errors import UsageError

FILL = (128, 100, 60)
SIGNED = {"Rotate": 30, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 0.45, "TranslateY": 0.45}
# name -> arguments as timm's functions take them
ARGUMENTS = {
    **{name: (-most, -0.37 * most, 0.2 * most, 0.9 * most) for name, most in SIGNED.items()},
    **dict.fromkeys(("AutoContrast", "Equalize", "Invert"), (None,)),
    "Posterize": (1, 2, 3, 4, 8),
    "Solarize": (0, 26, 128, 230, 256),
    "SolarizeAdd": (0, 33, 99, 110),
    **dict.fromkeys((*RandAugment.BLENDS, "Sharpness"), (0.1, 0.64, 1.0, 1.36, 1.9)),
}
RESAMPLING = dict(zip((0, 1), auto_augment._RANDOM_INTERPOLATION, strict=True))  # bilinear, bicubic
COUNT = 10_000


class Fixed(RandAugment):
    """The operations of each image and layer as they are given."""

    def __init__(self, names, arguments, bicubic=0, **keys):
        super().__init__(layers=len(names), probability=1.0, **keys)
        self.given = (
            [self.OPERATIONS.index(name) for name in names],
            [1.0 if value is None else value for value in arguments],
        )
        self.bicubic = bicubic

    def operations(self, draws):
        index, argument = (torch.tensor(given).expand(len(draws), -1) for given in self.given)
        return Operations(index, argument.float(), torch.full(argument.shape, float(self.bicubic)))


def timm_name(name):
    return f"{name}Rel" if name.startswith("Translate") else name


def draws(batch):
    return Draws.of(seed=0, epoch=0, sample_index=torch.arange(batch))


@pytest.mark.parametrize("name", RandAugment.OPERATIONS)
def test_each_operation_equals_timm(name, fidelity, pictures):
    function = auto_augment.NAME_TO_OP[timm_name(name)]
    for argument in ARGUMENTS[name]:
        for bicubic in (0, 1) if name in SIGNED else (0,):
            ours = Fixed([name], [argument], bicubic, fill=[value / 255 for value in FILL])
            keys = {"resample": RESAMPLING[bicubic], "fillcolor": FILL}
            arguments = () if argument is None else (argument,)
            for images in [*pictures(32, 32), *pictures(40, 56)]:
                theirs = [function(TF.to_pil_image(image), *arguments, **keys) for image in images]
                theirs = torch.stack([TF.pil_to_tensor(image) for image in theirs])
                title = f"{name}, {'bicubic' if bicubic else 'bilinear'}" if name in SIGNED else name
                fidelity(title, "timm", ours(images / 255), theirs)
                assert ours(images).dtype == torch.uint8


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_images_of_one_colour_and_of_few_pixels(name):
    for images in (
        torch.full((2, 3, 8, 8), 77, dtype=torch.uint8),
        torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4),
    ):
        theirs = [auto_augment.NAME_TO_OP[name](TF.to_pil_image(image)) for image in images]
        assert torch.equal(Fixed([name], [None])(images), torch.stack([TF.pil_to_tensor(image) for image in theirs]))


def test_no_bits_are_black():
    """What timm asks of Pillow at the ends of its range, and new ones refuse."""
    assert (Fixed(["Posterize"], [0])(torch.rand(1, 3, 8, 8)) == 0).all()


def test_layers_follow_one_another(pictures):
    images = pictures()[0] / 255
    both = Fixed(["Rotate", "Equalize"], [20, None])(images)
    assert torch.equal(both, Fixed(["Equalize"], [None])(Fixed(["Rotate"], [20])(images)))
    assert not torch.allclose(both, Fixed(["Equalize", "Rotate"], [None, 20])(images))


@pytest.mark.parametrize("increasing", [False, True], ids=["default", "inc1"])
@pytest.mark.parametrize("magnitude", range(11))
def test_levels_equal_timm(magnitude, increasing):
    ours = RandAugment(magnitude=magnitude, magnitude_std=0, increasing=increasing, layers=50, probability=1.0)
    drawn = ours.operations(draws(20))
    for place, name in enumerate(ours.OPERATIONS):
        theirs = timm_name(name)
        theirs = theirs if theirs in auto_augment.rand_augment_choices("", increasing) else f"{name}Increasing"
        level = auto_augment.LEVEL_TO_ARG[theirs]
        if level is not None:
            expected = {round(level(magnitude, {})[0], 6) for _ in range(50)}  # both signs, where there are two
            found = {round(value, 5) for value in drawn.argument[drawn.index == place].tolist()}
            assert {round(value, 5) + 0.0 for value in expected} == {value + 0.0 for value in found}


def timm_draws(config):
    """(COUNT, layers) names, None where nothing was done, and their arguments."""
    random.seed(1)
    np.random.seed(1)
    transform = auto_augment.rand_augment_transform(config)
    done = []
    for op in transform.ops:
        op.aug_fn = lambda image, *arguments, name=op.name, **_: done.append((name, *arguments)) or image
    drawn = []
    for _ in range(COUNT):
        done.clear()
        transform(None)
        drawn.append(list(done))
    return drawn


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ("rand-m9-n2-mstd0.5", {"increasing": False}),
        ("rand-m9-n2-mstd0.5-inc1", {}),
        ("rand-m6-n1-mstd101-p0.8-inc1", {"magnitude": 6, "layers": 1, "magnitude_std": math.inf, "probability": 0.8}),
        ("rand-m12-n2-mstd2-mmax15", {"magnitude": 12, "magnitude_std": 2, "limit": 15, "increasing": False}),
    ],
    ids=["default", "inc1", "uniform", "beyond ten"],
)
def test_draws_equal_timm_in_distribution(config, keys):
    ours = RandAugment(**keys)
    drawn = ours.operations(draws(COUNT))
    theirs = timm_draws(config)
    index, argument = drawn.index.flatten(), drawn.argument.flatten()
    expected = {}
    for name, *arguments in (done for image in theirs for done in image):
        expected.setdefault(name.removesuffix("Rel").removesuffix("Increasing"), []).append((arguments or [0.0])[0])
    counts = [len(expected[name]) for name in ours.OPERATIONS]
    counts.append(COUNT * ours.layers - sum(counts))  # layers that did nothing
    assert stats.chi2_contingency([counts, index.bincount(minlength=16).tolist()]).pvalue > 0.001
    for place, name in enumerate(ours.OPERATIONS):
        found = argument[index == place].double().numpy()
        if name in ("Posterize", "Solarize", "SolarizeAdd") or name not in ("AutoContrast", "Equalize", "Invert"):
            # Arguments at their bound are equal in decimals only.
            assert stats.ks_2samp(found.round(4), np.round(expected[name], 4)).pvalue > 0.001, name
        if name in SIGNED:
            signs = [[(values > 0).sum(), (values < 0).sum()] for values in (found, np.array(expected[name]))]
            assert stats.chi2_contingency(signs).pvalue > 0.001, name
    applied = [sum(len(image) == number for image in theirs) for number in range(ours.layers + 1)]
    found = (drawn.index < 15).sum(1).bincount(minlength=ours.layers + 1).tolist()
    assert stats.chi2_contingency([applied, found]).pvalue > 0.001  # layers are independent
    assert stats.binomtest(int(drawn.bicubic.sum()), drawn.bicubic.numel()).pvalue > 0.001


def test_columns_follow_the_warps_alone():
    images = torch.zeros(2, 3, 32, 32)
    images[:, :, 8:11, 20:23] = 1
    labels = images[:, 0].long()
    columns = {
        "labels": labels,
        "boxes": torch.tensor([20.0, 8.0, 23.0, 11.0]).expand(2, 1, 4),
        "flow": torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, 32, 32),
        "depth": images[:, :1].clone().fill_(torch.inf),
    }
    kinds = {"labels": "labels", "boxes": "boxes", "flow": "flow", "depth": "values"}
    sample = Sample((images * 255).to(torch.uint8), columns, kinds, white=255.0)
    moved = Fixed(["Rotate", "Invert"], [90, None], fill=(0, 0, 0)).transform(sample, draws(2))
    assert moved.white == 1
    assert torch.equal(moved.columns["labels"] == 1, moved.unit_images()[:, 0] < 0.5)
    assert (moved.columns["labels"][:, 9:12, 8:11] == 1).all()  # right becomes up
    torch.testing.assert_close(moved.columns["boxes"][0, 0], torch.tensor([8.0, 9.0, 11.0, 12.0]))
    torch.testing.assert_close(moved.columns["flow"][0, :, 16, 16], torch.tensor([0.0, -2.0]))
    kept = Fixed(["Invert", "Sharpness"], [None, 1.9]).transform(sample, draws(2))
    for name, column in columns.items():
        assert torch.equal(kept.columns[name], column)
    outside = Fixed(["TranslateX"], [0.25], fill_label=9).transform(sample, draws(2)).columns["labels"]
    assert (outside[:, :, -8:] == 9).all()
    assert (outside[:, :, :-8] < 9).all()


def test_images_smaller_than_their_tensor_turn_about_their_own_centre():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, :8, :8] = torch.rand(3, 8, 8)
    turned = Fixed(["Rotate"], [90]).transform(Sample(images.clone(), sizes=torch.tensor([[8, 8]])), draws(1))
    torch.testing.assert_close(turned.images[..., :8, :8], images[..., :8, :8].rot90(1, (2, 3)))
    assert turned.sizes.tolist() == [[8, 8]]


def test_images_keep_their_numbers_in_another_batch(pictures):
    images, augmentation = pictures()[0], RandAugment(probability=1.0)
    order = torch.tensor([5, 0, 11, 7])
    alone = augmentation(images[order], Draws.of(seed=0, epoch=0, sample_index=order))
    assert torch.equal(alone, augmentation(images, draws(len(images)))[order])


def test_input_is_left_alone_and_nothing_done_changes_nothing(pictures):
    images = pictures()[0] / 255
    before = images.clone()
    assert not torch.equal(RandAugment()(images), images)
    assert torch.equal(images, before)
    assert torch.equal(RandAugment(probability=0.0)(images), images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_layers_change_nothing(pictures, dtype):
    images = pictures()[0] if dtype == torch.uint8 else pictures()[0] / 255
    assert torch.equal(RandAugment(layers=0)(images, draws(len(images))), images)
    sample = Sample(pictures()[0], {"depth": torch.rand(12, 1, 32, 32)}, {"depth": "values"}, white=255.0)
    moved = RandAugment(layers=0).transform(sample, draws(12))
    assert torch.equal(moved.unit_images(), pictures()[0] / 255)
    assert torch.equal(moved.columns["depth"], sample.columns["depth"])


def test_translations_in_pixels():
    images = torch.rand(1, 3, 32, 32)
    augmentation = Fixed(["TranslateX"], [-3], translate_pixels=10)
    assert torch.equal(augmentation(images)[..., 3:], images[..., :-3])
    drawn = RandAugment(magnitude=10, magnitude_std=0, translate_pixels=7, layers=100).operations(draws(4))
    assert set(drawn.argument[drawn.index == 3].tolist()) == {7.0, -7.0}


@pytest.mark.parametrize("increasing", [False, True])
def test_compiled_equals_eager(increasing, pictures):
    images = pictures()[0].repeat(8, 1, 1, 1) / 255
    augmentation = RandAugment(probability=1.0, increasing=increasing)

    def change(images, index):
        return augmentation(images, Draws.of(0, 0, index))

    index = torch.arange(len(images))
    compiled = torch.compile(change, backend="aot_eager", fullgraph=True)(images, index)
    difference = (compiled - change(images, index)).abs()
    # Where a warp's rounding errors meet a table, a value may fall into another of the 256 steps.
    assert (difference > 1e-4).float().mean() < 1e-3


def test_mistakes():
    for keys, message in (
        ({"layers": -1}, "a whole number from 0 on"),
        ({"layers": 1.5}, "a whole number from 0 on"),
        ({"magnitude": 11}, "from 0 to 10"),
        ({"magnitude_std": -1}, "from 0 on"),
        ({"probability": 2}, "between 0 and 1"),
        ({"fill": (128, 128, 128)}, "three numbers between 0 and 1"),
    ):
        with pytest.raises(UsageError, match=message):
            RandAugment(**keys)
