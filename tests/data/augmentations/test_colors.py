"""Jitter, greys, blur and the rest: torchvision's functionals, in torchvision's distributions."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms as T
from torchvision.transforms import functional as TF

from hf_infomax.data.augmentations import (
    ColorDropping,
    ColorJitter,
    Draws,
    GaussianBlur,
    Normalize,
    RandomGrayscale,
    Solarize,
)
from hf_infomax.models.errors import UsageError

COUNT = 10_000
SIGNIFICANT = 0.001
FUNCTIONALS = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)


def draws(batch=COUNT, seed=0):
    return Draws.of(seed, 0, torch.arange(batch))


# --- jitter


@pytest.mark.parametrize("strengths", [(0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.4), (1.5, 0.3, 1.2, 0.0)])
@pytest.mark.parametrize("probability", [1.0, 0.6])
def test_jitter_is_torchvisions_functionals_in_each_images_order(strengths, probability, fidelity, pictures):
    jitter = ColorJitter(*strengths, probability=probability)
    for pixels in pictures():
        same = draws(len(pixels))
        factors, orders = torch.stack(jitter.factors(same), 1).tolist(), same.permutation(4).tolist()

        def one_after_another(image, place, step=1, factors=factors, orders=orders):
            for which in orders[place][::step]:
                image = FUNCTIONALS[which](image, factors[place][which])
            return image

        def ours(images):
            return jitter(images, draws(len(images)))

        # Of four changes in a row Pillow cuts every one to 8 bits.
        fidelity.to_torchvision("ColorJitter", [pixels], ours, one_after_another, 1e-6, 1.5 / 255)
        backwards = [one_after_another(image / 255, place, step=-1) for place, image in enumerate(pixels)]
        assert (ours(pixels / 255) - torch.stack(backwards)).abs().mean() > 1e-3  # the order matters to these pictures


def test_factors_are_distributed_as_torchvisions():
    strengths = (0.4, 0.8, 1.2, 0.2)  # 1.2 reaches beyond a factor of 0
    ours = ColorJitter(*strengths).factors(draws())
    reference = T.ColorJitter(*strengths)
    limits = reference.brightness, reference.contrast, reference.saturation, reference.hue
    theirs = np.array([T.ColorJitter.get_params(*limits)[1:] for _ in range(COUNT)], dtype=np.float32)
    for place, factor in enumerate(ours):
        assert stats.ks_2samp(factor.numpy(), theirs[:, place]).pvalue > SIGNIFICANT
    correlation = torch.corrcoef(torch.stack(ours)) - torch.eye(4)
    assert correlation.abs().max() < 4 / COUNT**0.5


def test_strength_multiplies_all_four():
    halved, given = ColorJitter(0.8, 0.6, 0.4, 0.2, strength=0.5), ColorJitter(0.4, 0.3, 0.2, 0.1)
    for factor, other in zip(halved.factors(draws(50)), given.factors(draws(50)), strict=True):
        torch.testing.assert_close(factor, other)


@pytest.mark.parametrize("probability", [0.0, 0.8, 1.0])
def test_rate_of_jitter(probability):
    factors = torch.stack(ColorJitter(0.8, 0.8, 0.8, 0.2, probability=probability).factors(draws()), 1)
    neutral = (factors == torch.tensor([1.0, 1.0, 1.0, 0.0])).all(1)
    assert stats.binomtest(COUNT - int(neutral.sum()), COUNT, probability).pvalue > SIGNIFICANT
    assert not neutral.all() or probability == 0


def test_orders_are_uniform_and_independent_of_image_and_factors():
    jitter, names = ColorJitter(0.8, 0.8, 0.8, 0.2), list(itertools.permutations(range(4)))

    def drawn(seed):
        same = draws(seed=seed)
        factors = jitter.factors(same)
        return np.array([names.index(tuple(order)) for order in same.permutation(4).tolist()]), factors

    order, factors = drawn(0)
    theirs = [names.index(tuple(T.ColorJitter.get_params(None, None, None, None)[0].tolist())) for _ in range(COUNT)]
    counts = np.bincount(order, minlength=24)
    assert stats.chisquare(counts).pvalue > SIGNIFICANT
    assert stats.chi2_contingency([counts, np.bincount(theirs, minlength=24)]).pvalue > SIGNIFICANT

    def independent(of, kinds):
        table = np.bincount(order * kinds + of, minlength=24 * kinds).reshape(24, kinds)
        return stats.chi2_contingency(table).pvalue > SIGNIFICANT

    assert independent(np.arange(COUNT) % 8, 8)  # of the image's place
    assert independent(np.arange(COUNT) * 10 // COUNT, 10)
    assert independent(np.roll(order, 1), 24)  # of the image before
    assert independent(drawn(1)[0], 24)  # of another run
    for factor in factors:
        assert independent((factor > factor.median()).numpy().astype(int), 2)


# --- the others


def noisy(batch, side=3):
    """Images that every change changes."""
    return torch.rand(1, 3, side, side).mul(0.8).add(0.1).expand(batch, -1, -1, -1)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize(
    "build",
    [RandomGrayscale, lambda p: GaussianBlur(3, (0.5, 2.0), p), lambda p: Solarize(0.4, p), ColorDropping],
    ids=["grayscale", "blur", "solarize", "dropping"],
)
def test_rates(build, probability):
    images = noisy(COUNT)
    changed = (build(probability)(images, draws()) != images).flatten(1).any(1)
    assert stats.binomtest(int(changed.sum()), COUNT, probability).pvalue > SIGNIFICANT
    if probability == 0.5:
        pairs = torch.bincount(changed[:-1:2].long() * 2 + changed[1::2], minlength=4)
        assert stats.chisquare(pairs).pvalue > SIGNIFICANT


def test_rate_of_greys_is_torchvisions():
    reference, image = T.RandomGrayscale(0.2), torch.tensor([0.9, 0.5, 0.1]).view(3, 1, 1)
    theirs = sum(not torch.equal(reference(image), image) for _ in range(COUNT))
    ours = int((RandomGrayscale(0.2)(image.expand(COUNT, -1, -1, -1), draws())[:, 0, 0, 0] != 0.9).sum())
    table = [[count, COUNT - count] for count in (ours, theirs)]
    assert stats.chi2_contingency(table).pvalue > SIGNIFICANT


@pytest.mark.parametrize("limits", [(0.5, 2.0), (0.8, 0.9)])
def test_sigmas_are_distributed_as_torchvisions(limits):
    """Read from what becomes of a point: its neighbour is exp(-1 / 2 sigma^2) of it."""
    point = torch.zeros(3, 5, 5)
    point[:, 2, 2] = 1
    blurred = GaussianBlur(3, limits)(point.expand(COUNT, -1, -1, -1), draws())
    ours = (-0.5 / (blurred[:, 0, 2, 1] / blurred[:, 0, 2, 2]).log()).sqrt()
    theirs = np.array([T.GaussianBlur.get_params(*limits) for _ in range(COUNT)])
    assert stats.ks_2samp(ours.numpy(), theirs).pvalue > SIGNIFICANT


@pytest.mark.parametrize("taps", [3, 23])
def test_blur_equals_torchvision(taps, fidelity, pictures):
    fidelity.to_torchvision(
        f"GaussianBlur, {taps} taps",
        pictures(),
        GaussianBlur(taps, (1.3, 1.3)),
        lambda image, _: TF.gaussian_blur(image, [taps, taps], [1.3, 1.3]),
    )


def test_greys_and_negatives_equal_torchvision(fidelity, pictures):
    greys = RandomGrayscale(1.0)
    fidelity.to_torchvision("RandomGrayscale", pictures(), greys, lambda image, _: TF.rgb_to_grayscale(image, 3), 1e-7)
    for pixels in pictures():
        ours = Solarize(0.5)(pixels / 255)
        theirs = torch.stack([TF.solarize(image / 255, 0.5) for image in pixels])
        fidelity("Solarize", "torchvision, float", ours, theirs, 1e-7)


def test_dropping_keeps_one_channel_and_makes_noise_of_the_others():
    images = torch.rand(600, 3, 16, 16) * torch.rand(600, 1, 1, 1) * 0.4 + 0.3  # the noise stays within [0, 1]
    dropped = ColorDropping()(images, draws(600))
    same = (dropped == images).flatten(2).all(2)
    assert same.sum(1).eq(1).all()
    kept = same.long().argmax(1)
    assert stats.chisquare(torch.bincount(kept, minlength=3)).pvalue > SIGNIFICANT
    channel, noise = images[same], dropped[~same].view(600, 2, 16, 16)
    deviation = channel.std((1, 2)) / 100
    standard = (noise - channel.mean((1, 2)).view(-1, 1, 1, 1)) / deviation.view(-1, 1, 1, 1)
    assert abs(standard.mean()) < 4 / standard.numel() ** 0.5 + 1e-3
    assert abs(standard.std() - 1) < 0.01
    # Of single images too: the mean of 256 numbers, and their deviation, at 5 standard errors.
    assert standard.mean((2, 3)).abs().max() < 5 / 16
    assert (standard.std((2, 3)) - 1).abs().max() < 5 / 512**0.5
    assert abs(torch.corrcoef(standard.transpose(0, 1).flatten(1))[0, 1]) < 0.02


def test_normalize_equals_torchvision():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    expected = TF.normalize(pixels / 255, mean, std)
    normalize = Normalize(mean, std)
    for images in (pixels, pixels / 255):
        torch.testing.assert_close(normalize(images), expected, atol=1e-6, rtol=0)
    assert not normalize.state_dict()


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: ColorJitter(brightness=-0.1), "give none below 0"),
        (lambda: ColorJitter(0.4, strength=-1), "give none below 0"),
        (lambda: ColorJitter(hue=0.6), "the hue's jitter is 0.6 of the circle: give at most 0.5"),
        (lambda: ColorJitter(hue=0.3, strength=2), "the hue's jitter is 0.6"),
        (lambda: ColorJitter(probability=-0.1), "the probability of jitter is -0.1"),
        (lambda: RandomGrayscale(1.1), "the probability of grayscale is 1.1"),
        (lambda: ColorDropping(2), "the probability of colour dropping is 2"),
        (lambda: GaussianBlur(4), "the kernel of a blur has 4 taps: give an odd number"),
        (lambda: GaussianBlur(0), "has 0 taps"),
        (lambda: GaussianBlur(3, (2.0, 1.0)), "the standard deviation of a blur is between 2.0 and 1.0"),
        (lambda: GaussianBlur(3, (0.0, 1.0)), "in order, from 0.001 to inf"),
        (lambda: GaussianBlur(3, probability=7), "the probability of blur is 7"),
        (lambda: Solarize(probability=7), "the probability of solarize is 7"),
    ],
)
def test_wrong_arguments(build, sentence):
    with pytest.raises(UsageError, match=sentence):
        build()
