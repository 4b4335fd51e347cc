"""Every function equals torchvision's functional of the same name, with a parameter of its own for each image."""

import pytest
import torch
from torchvision.transforms import functional as TF

from hf_infomax.data.augmentations import photometry

FACTORS = (0.0, 0.3, 0.8, 1.0, 1.4, 2.0)
SHIFTS = (-0.5, -0.21, -0.05, 0.0, 0.08, 0.37, 0.5)
SIGMAS = (0.1, 0.5, 1.0, 2.0)
THRESHOLDS = (0.0, 64 / 255, 128 / 255, 1.0)


def solarize(image, threshold):
    """torchvision takes the threshold in the units of the image."""
    return TF.solarize(image, threshold if isinstance(image, torch.Tensor) else round(255 * threshold))


def blur_of(taps):
    return (
        lambda images, sigma: photometry.gaussian_blur(images, sigma, taps),
        lambda image, sigma: TF.gaussian_blur(image, [taps, taps], [sigma, sigma]),
        SIGMAS,
    )


# name -> our function of a batch, torchvision's of an image, parameters
OPERATIONS = {
    "brightness": (lambda images, f: photometry.adjust_one(images, f, f**0, f**0), TF.adjust_brightness, FACTORS),
    "contrast": (lambda images, f: photometry.adjust_one(images, f**0, f, f**0), TF.adjust_contrast, FACTORS),
    "saturation": (lambda images, f: photometry.adjust_one(images, f**0, f**0, f), TF.adjust_saturation, FACTORS),
    "hue": (photometry.adjust_hue, TF.adjust_hue, SHIFTS),
    "grayscale": (lambda images, _: photometry.grayscale(images), lambda image, _: TF.rgb_to_grayscale(image), (0.0,)),
    "solarize": (photometry.solarize, solarize, THRESHOLDS),
    "gaussian blur, 3 taps": blur_of(3),
    "gaussian blur, 23 taps": blur_of(23),
}
ROUNDED_OFTEN = {"hue": 1 / 255}  # Pillow's way through HSV is one of 8 bits


@pytest.mark.parametrize("size", [(32, 32), (40, 72)], ids=["32x32", "40x72"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_equals_torchvision(operation, size, fidelity, pictures):
    ours, theirs, values = OPERATIONS[operation]
    for value in values:
        fidelity.to_torchvision(
            operation,
            pictures(*size),
            lambda images, value=value: ours(images, torch.full((len(images),), value)),
            lambda image, _, value=value: theirs(image, value),
            pillow_bound=ROUNDED_OFTEN.get(operation, 0.6 / 255),
        )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_image_has_its_own_parameter(operation, pictures):
    ours, _, values = OPERATIONS[operation]
    images = (pictures()[0] / 255)[: len(values)]
    alone = [ours(image[None].clone(), torch.tensor([value])) for image, value in zip(images, values, strict=False)]
    before = images.clone()
    torch.testing.assert_close(ours(images, torch.tensor(values)), torch.cat(alone), atol=1e-6, rtol=0)
    assert torch.equal(images, before)  # functions, which leave their input as it is


def test_greys_of_any_hue_stay_grey():
    greys = torch.linspace(0, 1, 11).view(1, 1, 1, 11).expand(3, 3, 1, 11)
    torch.testing.assert_close(photometry.adjust_hue(greys.clone(), torch.tensor([-0.4, 0.1, 0.5])), greys)


@pytest.mark.parametrize(("shift", "channel"), [(0.0, 0), (1 / 3, 1), (-1 / 3, 2)])
def test_a_third_of_the_circle_turns_red_into_green_or_blue(shift, channel):
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    turned = photometry.adjust_hue(red, torch.tensor([shift])).flatten()
    torch.testing.assert_close(turned, torch.eye(3)[channel], atol=1e-6, rtol=0)


def test_blur_keeps_constants_and_spreads_a_point():
    sigma = torch.tensor([0.4, 5.0])
    constant = torch.full((2, 3, 9, 9), 0.37)
    torch.testing.assert_close(photometry.gaussian_blur(constant, sigma, 7), constant)
    point = torch.zeros(2, 3, 15, 15)
    point[..., 7, 7] = 1
    blurred = photometry.gaussian_blur(point, sigma, 7)
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(2, 3))
    assert blurred[0, 0, 7, 7] > blurred[1, 0, 7, 7] > 1 / 49
    assert blurred[..., 7, 11].eq(0).all()  # beyond the taps
