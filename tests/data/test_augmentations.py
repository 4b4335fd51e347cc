import pytest
import torch
import torch.nn.functional as F

from hf_infomax.data.augmentations import CropFlip
from hf_infomax.models.errors import UsageError


def images(batch=64, height=8, width=8):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def naive_candidates(image, size, padding, flips):
    """Every crop of one image that the augmentation may give, by `F.pad`, slicing and `flip`."""
    padded = F.pad(image[None], (padding,) * 4, mode="reflect")[0]
    height, width = padded.shape[-2:]
    for top in range(height - size + 1):
        for left in range(width - size + 1):
            crop = padded[:, top : top + size, left : left + size]
            for flip in flips:
                yield (top, left, flip), crop.flip(-1) if flip else crop


@pytest.mark.parametrize(
    ("height", "width", "size", "padding"), [(8, 8, 8, 2), (8, 8, 8, 7), (10, 12, 8, 0), (8, 10, 8, 1), (6, 6, 8, 1)]
)
def test_each_image_is_one_of_its_own_crops(height, width, size, padding):
    batch = images(16, height, width)
    augmented = CropFlip(size, padding=padding, flip=0.5)(batch)
    assert augmented.shape == (16, 3, size, size)
    for image, result in zip(batch, augmented, strict=True):
        crops = naive_candidates(image, size, padding, (False, True))
        assert any(torch.equal(result, crop) for _, crop in crops)


def test_images_have_parameters_of_their_own_and_all_occur():
    image = images(1)
    drawn = CropFlip(8, padding=1, flip=0.5)(image.expand(1_000, -1, -1, -1))
    counts = {}
    for key, crop in naive_candidates(image[0], 8, 1, (False, True)):
        counts[key] = (drawn == crop).flatten(1).all(dim=1).sum().item()
    assert len(counts) == 18
    assert sum(counts.values()) == 1_000
    assert min(counts.values()) > 25  # 56 expected; 18 uniform cells of 1,000 draws


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flips_never_or_always(flip):
    batch = images()
    expected = batch.flip(-1) if flip else batch
    assert torch.equal(CropFlip(8, padding=0, flip=flip)(batch), expected)


def test_any_type_of_pixel():
    batch = (images() * 255).to(torch.uint8)
    assert CropFlip(8, padding=2, flip=0.5)(batch).dtype == torch.uint8


def test_gradients_pass_to_the_pixels():
    batch = images(2).requires_grad_()
    CropFlip(8, padding=0, flip=0.5)(batch).sum().backward()
    assert torch.equal(batch.grad, torch.ones_like(batch))


def test_strengths_out_of_range():
    for padding in (-1, 1.5):
        with pytest.raises(UsageError, match="padding is"):
            CropFlip(8, padding=padding, flip=0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        CropFlip(8, padding=1, flip=2)
    with pytest.raises(UsageError, match="cannot be reflected from images of 8x8"):
        CropFlip(8, padding=8, flip=0.5)(images())
    with pytest.raises(UsageError, match="crops of 16 pixels do not fit into images of 8x8"):
        CropFlip(16, padding=2, flip=0.5)(images())
