import importlib
import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from hf_infomax import UsageError
from hf_infomax.evaluation.reconstruction import SCALE_WEIGHTS, Generator, ms_ssim, reconstruction, scales_and_window

# The package has a function of the same name.
module = importlib.import_module("hf_infomax.evaluation.reconstruction")


def smooth(count, side):
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=(side, side), mode="bilinear")


def contrast_and_ssim(one, other):
    """scikit-image's SSIM, and its contrast and structure term alone: that of images of equal local means."""
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    values = []
    for a, b in zip(one.double().numpy(), other.double().numpy(), strict=True):
        _, ssim = structural_similarity(a, b, **options)
        mean_a, mean_b = (gaussian_filter(image, 1.5, truncate=3.5) for image in (a, b))
        luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        values.append([part[5:-5, 5:-5].mean() for part in (ssim / luminance, ssim)])
    return np.mean(values, axis=0)


@pytest.mark.parametrize("side", [32, 64, 176])
def test_it_is_the_product_over_scales_of_another_library(side):
    one = smooth(1, side)
    other = (one + 0.1 * torch.randn(one.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    scales = scales_and_window(side)[0]
    expected, weights = 1.0, np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    a, b = one, other
    for scale, weight in enumerate(weights):
        contrast, ssim = contrast_and_ssim(a[0], b[0])
        expected *= (ssim if scale == scales - 1 else contrast) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    assert ms_ssim(other, one).item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("side", [6, 9, 16, 21, 22, 32, 43, 44, 98, 99])
def test_every_size_has_scales_and_a_window_that_fit(side):
    images = smooth(2, side)
    assert ms_ssim(images, images).tolist() == pytest.approx([1, 1], abs=1e-4)
    noisy = (images + 0.3 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert (ms_ssim(noisy, images) < 0.99).all()
    assert scales_and_window(side)[1] % 2 == 1


def test_uint8_and_floating_point_images_are_alike_and_the_order_does_not_matter(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    images = (smooth(3, 16) * 255).byte()
    found = ms_ssim(images, images.flip(0))
    torch.testing.assert_close(found, ms_ssim(images.flip(0).float() / 255, images.float() / 255))
    assert found[1].item() == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_compared_is_refused(monkeypatch):
    with pytest.raises(UsageError, match="cannot be compared"):
        ms_ssim(torch.rand(2, 3, 8, 8), torch.rand(3, 3, 8, 8))
    with pytest.raises(UsageError, match="5 pixels are too small"):
        ms_ssim(torch.rand(2, 3, 5, 9), torch.rand(2, 3, 5, 9))
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(UsageError, match=r'MS-SSIM needs torchmetrics.*pip install "hf-infomax\[eval\]"'):
        ms_ssim(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (96, 96), (20, 30)])
def test_the_decoder_fits_any_size(size):
    assert Generator(torch.randn(4, 5), size, width=4)(torch.randn(2, 5)).shape == (2, 3, *size)


def test_features_that_know_the_image_give_it_back_and_others_do_not():
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(400, 3, 2, 2, generator=generator)
    pixels = (F.interpolate(colours, size=(16, 16)) * 255).byte()
    options = {"epochs": 6, "batch_size": 32, "width": 16, "progress": False}
    knowing, ignorant = (
        reconstruction(y[:360], pixels[:360], y[360:], pixels[360:], **options)
        for y in (colours.flatten(1), torch.randn(400, 12, generator=generator))
    )
    assert knowing.ms_ssim > ignorant.ms_ssim + 0.1
    assert knowing.mse < 0.6 * ignorant.mse
    assert knowing.images.shape == (40, 3, 16, 16)
    references = pixels[360:].float() / 255
    assert knowing.mse == pytest.approx((knowing.images - references).square().mean().item())
    assert knowing.ms_ssim == pytest.approx(ms_ssim(knowing.images, references).mean().item())


def test_the_seed_decides_and_the_global_one_is_left_alone():
    y, pixels = torch.randn(20, 3), torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8)
    state = torch.get_rng_state()
    first, again, other = (
        reconstruction(y, pixels, y, pixels, seed=seed, epochs=1, width=4, progress=False) for seed in (0, 0, 1)
    )
    assert torch.get_rng_state().equal(state)
    assert first.images.equal(again.images)
    assert not first.images.equal(other.images)


def test_splits_that_do_not_fit_are_refused():
    y, pixels = torch.randn(20, 3), torch.zeros(20, 3, 8, 8)
    with pytest.raises(UsageError, match=r"The training split has features \(19, 3\)"):
        reconstruction(y[:19], pixels, y, pixels)
    with pytest.raises(UsageError, match="differ in the size"):
        reconstruction(y, pixels, y[:, :2], pixels)
    with pytest.raises(UsageError, match="test_features holds NaN"):
        reconstruction(y, pixels, y / 0 * 0, pixels)
