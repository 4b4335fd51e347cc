"""Reconstruction: how much of an image's pixels a frozen representation still holds, by a decoder and MS-SSIM."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from hf_infomax.models.errors import UsageError, library

from .divergence import STATISTICS, Standardise, require_counts
from .features import evaluation_mode, require_finite, to_unit_range

#: Exponents of the five scales, from the finest on (Wang et al. 2003, sec. 3.2).
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
#: Side and deviation of the Gaussian window, in pixels; a smaller one shrinks as a whole.
WINDOW, DEVIATION = 11, 1.5
#: Scales -> the shorter side, in pixels, from which on torchmetrics takes so many with the whole window.
SIDES = {5: 176, 4: 99, 3: 44}
#: Images compared at once.
CHUNK = 500


@dataclass(frozen=True)
class Reconstruction:
    """What a decoder gives back of the test images."""

    ms_ssim: float  #: mean over the images, 1 for equal ones
    mse: float  #: mean squared error of pixels in [0, 1]
    images: Tensor  #: (M, 3, H, W) float32 in [0, 1], on the CPU


def scales_and_window(side: int) -> tuple[int, int]:
    """How many scales, and which window, fit an image whose shorter side has so many pixels.

    Five scales from 176 pixels on, four from 99, three from 44, and two below, with the window of 11 pixels or, below 22, the
    largest odd one that fits the coarser scale.

    Raises:
        UsageError: the side is below 6 pixels.

    >>> [scales_and_window(side) for side in (8, 16, 32, 64, 128, 256)]
    [(2, 3), (2, 7), (2, 11), (3, 11), (4, 11), (5, 11)]
    """
    if side < 6:
        raise UsageError(f"Images with a side of {side} pixels are too small for MS-SSIM, which needs 6 or more.")
    scales = next((count for count, least in SIDES.items() if side >= least), 2)
    coarsest = side >> (scales - 1)
    return scales, min(WINDOW, coarsest - 1 + coarsest % 2)


def ms_ssim(predictions: Tensor, references: Tensor) -> Tensor:
    r"""Multi-scale structural similarity of images, by torchmetrics; 1 for equal ones.

    .. math:: \text{MS-SSIM}(a, b) = \text{SSIM}(a_M, b_M)^{w_M} \prod_{j < M} \mathrm{cs}(a_j, b_j)^{w_j}, \quad \sum_j w_j = 1

    with a_1 the image, each further scale the last one averaged over 2 x 2 pixels, and cs the contrast and structure term. Five
    scales with a window of 11 pixels need images of 176 pixels; smaller ones have fewer (see `scales_and_window`), the first of the
    five, whose weights are divided by their sum. For 32 x 32 that is two scales, of weights 0.14 and 0.86: comparable between
    models, and not with values of larger images or of another choice, which Table 3 does not tell. A negative factor counts as 0.

    Args:
        predictions, references: (N, 3, H, W), uint8 or floating point in [0, 1].

    Returns:
        (N,) float32, in [0, 1].

    Raises:
        UsageError: the two do not fit, are no RGB images, or have a side below 6 pixels; or torchmetrics is not installed.

    Source: Wang, Simoncelli and Bovik 2003, Multi-scale structural similarity for image quality assessment, eq. 7.

    >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> [round(value, 4) for value in ms_ssim(images, images).tolist()]
    [1.0, 1.0]
    """
    metrics = library("torchmetrics.functional.image", "MS-SSIM", 'pip install "hf-infomax[eval]"')
    if predictions.shape != references.shape or len(references) == 0:
        shapes = f"{tuple(predictions.shape)} and {tuple(references.shape)}"
        raise UsageError(f"Images of shapes {shapes} cannot be compared: give a reference for each prediction.")
    pairs = [to_unit_range(images).split(CHUNK) for images in (predictions, references)]
    scales, window = scales_and_window(min(references.shape[-2:]))
    weights = SCALE_WEIGHTS[:scales]
    values = [
        metrics.multiscale_structural_similarity_index_measure(
            one,
            other,
            kernel_size=window,
            sigma=DEVIATION * window / WINDOW,
            data_range=1.0,
            betas=tuple(weight / sum(weights) for weight in weights),
            normalize="relu",
            reduction="none",
        )
        for one, other in zip(*pairs, strict=True)
    ]
    return torch.cat(values)


class Generator(nn.Sequential):
    """DCGAN's generator, the mirror of Deep InfoMax's encoder: a vector -> a small map -> 4x4 transposed convolutions of stride 2.

    Args:
        sample: representations (S, F), to standardise by.
        size: (H, W) of the images.
        width: channels of the last map but one; each before has twice as many.

    >>> Generator(torch.randn(10, 64), (32, 32))(torch.randn(2, 64)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, sample: Tensor, size: tuple[int, int], width: int = 64):
        blocks = max(1, round(math.log2(min(size) / 4)))  # from about 4 x 4
        first = [-(-side // 2**blocks) for side in size]
        channels = [width * 2**block for block in reversed(range(blocks))]
        layers = [nn.Linear(sample.shape[1], channels[0] * math.prod(first), bias=False)]
        layers += [nn.Unflatten(1, (channels[0], *first)), nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)]
        for wide, narrow in pairwise(channels):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(narrow), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1), Crop(size), nn.Sigmoid()]
        super().__init__(Standardise(sample), *layers)


class Crop(nn.Module):
    """(B, 3, h, w) -> its first H rows and W columns, for sizes that are no multiple of the first map's."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, H, W)."""
        return images[..., : self.size[0], : self.size[1]]


def _check(train_features: Tensor, train_pixels: Tensor, test_features: Tensor, test_pixels: Tensor) -> None:
    for part, features, pixels in (
        ("training", train_features, train_pixels),
        ("test", test_features, test_pixels),
    ):
        to_unit_range(pixels[:1])  # refuses what is not an image
        if features.dim() != 2 or len(features) != len(pixels) or len(features) < 2:
            shapes = f"{tuple(features.shape)} and images {tuple(pixels.shape)}"
            raise UsageError(
                f"The {part} split has features {shapes}: give (N, F) features and an image for each, two or more."
            )
    if train_features.shape[1:] != test_features.shape[1:] or train_pixels.shape[1:] != test_pixels.shape[1:]:
        raise UsageError(
            "Training and test split differ in the size of features or images: take both from the same layer and set."
        )
    require_finite(train_features=train_features, test_features=test_features)


def reconstruction(
    train_features: Tensor,
    train_pixels: Tensor,
    test_features: Tensor,
    test_pixels: Tensor,
    seed: int = 0,
    epochs: int = 10,
    batch_size: int = 128,
    width: int = 32,
    learning_rate: float = 2e-3,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Reconstruction:
    r"""Train a decoder from frozen features to the images that they are of, and compare what it gives back of others by MS-SSIM.

    .. math:: \min_g E |g(y) - x|^2, \qquad \text{score} = E_{test}[\text{MS-SSIM}(g(y), x)]

    Deep InfoMax sec. 3.1 and Table 3: a proxy of I(X; Y) that counts what can be seen in pixels. The decoder is DCGAN's
    generator on standardised features, trained by Adam with a learning rate that falls to zero. See `ms_ssim` for the scales.

    Args:
        train_features, test_features: (N, F) and (M, F).
        train_pixels, test_pixels: (N, 3, H, W) and (M, 3, H, W), uint8 or floating point in [0, 1].
        seed: of the decoder's weights and of the order of images.
        epochs: passes over the training images.
        batch_size: images in a step.
        width: channels of the decoder's last map but one; DCGAN's has 64 or more.
        learning_rate: the first.
        device: where to compute; None: where the training features are.
        progress: show a bar, which goes away when it is done.

    Returns:
        The score, the mean squared error, and the test images that the decoder gives.

    Raises:
        UsageError: the shapes do not fit, features are not finite, or images have a side below 6 pixels; or torchmetrics is not
            installed.

    Source: Hjelm et al. 2019, sec. 3.1, Table 3; Radford et al. 2016 for the generator.

    Its sibling `mine` estimates the same information by a network that need not draw it.

    >>> pixels = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8)
    >>> features = pixels.float().mean(dim=(2, 3))
    >>> found = reconstruction(features[:30], pixels[:30], features[30:], pixels[30:], epochs=1, progress=False)
    >>> found.images.shape
    torch.Size([10, 3, 16, 16])
    """
    require_counts(epochs=epochs, batch_size=batch_size, width=width)
    _check(train_features, train_pixels, test_features, test_pixels)
    scales_and_window(min(train_pixels.shape[-2:]))  # too small an image is refused before the training
    device = train_features.device if device is None else torch.device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Generator(train_features[:STATISTICS], tuple(train_pixels.shape[-2:]), width).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=learning_rate)
    batches = -(-len(train_pixels) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    for _ in tqdm(range(epochs), desc="reconstruction", unit="epoch", leave=False, disable=not progress):
        # As equal as they can be: a last batch of a single image would have no batch statistics.
        for chosen in torch.randperm(len(train_pixels), generator=generator).tensor_split(batches):
            images = to_unit_range(train_pixels[chosen.to(train_pixels.device)].to(device))  # (B, 3, H, W)
            loss = F.mse_loss(decoder(train_features[chosen.to(train_features.device)].to(device)), images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with evaluation_mode(decoder), torch.no_grad():
        images = torch.cat([decoder(part.to(device)).cpu() for part in test_features.split(CHUNK)])
    references = to_unit_range(test_pixels.cpu())
    return Reconstruction(ms_ssim(images, references).mean().item(), F.mse_loss(images, references).item(), images)
