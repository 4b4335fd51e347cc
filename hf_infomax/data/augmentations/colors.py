"""How it looks: random changes of colour and sharpness, which leave every pixel in its place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from . import photometry
from .base import Augmentation, Range, on_some, ordered, probability_of
from .randomness import Draws


class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue, each changed by a factor of its own, in a random order for each image.

    As in torchvision: factors uniform on [max(0, 1 - s), 1 + s], the hue's shift uniform on [-s, s] of the circle.

    Args:
        brightness, contrast, saturation, hue: the strengths s.
        strength: x, which multiplies all four: (0.8 x, 0.8 x, 0.8 x, 0.2 x) in SimCLR and InfoMin (C.2).
        probability: of any change at all, per image.

    Raises:
        UsageError: when built, a strength below 0, or a hue beyond 1/2.

    Example:
        >>> ColorJitter(0.8, 0.8, 0.8, 0.2, strength=0.5, probability=0.8)(torch.rand(8, 3, 32, 32)).shape
        torch.Size([8, 3, 32, 32])
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        strength: float = 1.0,
        probability: float = 1.0,
    ) -> None:
        super().__init__()
        self.strengths = tuple(strength * given for given in (brightness, contrast, saturation, hue))
        if min(self.strengths) < 0:
            raise UsageError(f"the strengths of a jitter are {self.strengths}: give none below 0.")
        if self.strengths[3] > 0.5:
            raise UsageError(f"the hue's jitter is {self.strengths[3]:g} of the circle: give at most 0.5.")
        self.probability = probability_of("jitter", probability)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        *adjustments, hue = self.factors(draws)
        order = draws.permutation(4)  # (B, 4): which of the four comes at each place
        # The first three are one formula for all images at once, which is faster than to part them by what comes next.
        factors = [torch.where(order == number, factor[:, None], 1.0) for number, factor in enumerate(adjustments)]
        for place in range(4):
            images = photometry.adjust_one(images, *(factor[:, place] for factor in factors), out=images)
            if self.strengths[3]:
                images = on_some(images, (order[:, place] == 3) & (hue != 0), photometry.adjust_hue, hue)
        return images

    def factors(self, draws: Draws) -> list[Tensor]:
        """The four parameters, (B,) each: factors, and the hue's shift; 1 and 0 where nothing is to change."""
        happens = draws.happens(self.probability)
        unit = draws.uniform(4).unbind(1)
        factors = []
        for strength, uniform, neutral in zip(self.strengths, unit, (1.0, 1.0, 1.0, 0.0), strict=True):
            low = max(0.0, neutral - strength) if neutral else -strength
            drawn = low + (neutral + strength - low) * uniform
            factors.append(torch.where(happens, drawn, neutral))
        return factors

    def extra_repr(self) -> str:
        return f"strengths={self.strengths}, probability={self.probability}"


class RandomGrayscale(Augmentation):
    """All three channels become the grey, with `probability`; what SimCLR and InfoMin call colour dropping."""

    def __init__(self, probability: float = 0.2) -> None:
        super().__init__()
        self.probability = probability_of("grayscale", probability)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        return on_some(images, draws.happens(self.probability), lambda some: photometry.grayscale(some).expand_as(some))

    def extra_repr(self) -> str:
        return f"probability={self.probability}"


class ColorDropping(Augmentation):
    """One channel stays, the two others become noise around its mean, with `probability`.

    Against the shortcut of chromatic aberration in patches (Doersch et al., 2015, 3.1): the noise is Gaussian, with a
    hundredth of the standard deviation of the channel that stays.
    """

    def __init__(self, probability: float = 1.0) -> None:
        super().__init__()
        self.probability = probability_of("colour dropping", probability)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        happens, kept = draws.happens(self.probability), draws.integers(3)
        return on_some(images, happens, self._drop, kept, draws.normal(*images.shape[1:]))

    def _drop(self, images: Tensor, kept: Tensor, noise: Tensor) -> Tensor:
        stays = (kept[:, None] == torch.arange(3, device=kept.device)).to(images.dtype)[..., None, None]  # (B, 3, 1, 1)
        channel = (images * stays).sum(1, keepdim=True)  # (B, 1, H, W)
        deviation, mean = torch.std_mean(channel, (2, 3), keepdim=True)
        return torch.lerp((noise * (deviation / 100) + mean).clamp_(0, 1), images, stays)

    def extra_repr(self) -> str:
        return f"probability={self.probability}"


class GaussianBlur(Augmentation):
    """Blur by a Gaussian whose standard deviation, in pixels, is uniform on `sigma`, with `probability`.

    Args:
        kernel_size: odd number of taps; SimCLR takes a tenth of the image's side (23 of 224).
        sigma: bounds of the standard deviation.
        probability: of any blur, per image.
    """

    def __init__(self, kernel_size: int, sigma: Range = (0.1, 2.0), probability: float = 1.0) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UsageError(f"the kernel of a blur has {kernel_size} taps: give an odd number from 1 on.")
        self.kernel_size = kernel_size
        self.sigma = ordered("standard deviation of a blur", sigma, 1e-3, math.inf)
        self.probability = probability_of("blur", probability)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        happens, sigma = draws.happens(self.probability), draws.uniform(low=self.sigma[0], high=self.sigma[1])
        return on_some(images, happens, lambda some, s: photometry.gaussian_blur(some, s, self.kernel_size), sigma)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, sigma={self.sigma}, probability={self.probability}"


class Solarize(Augmentation):
    """What is at or above `threshold` (in [0, 1]) is inverted, with `probability`."""

    def __init__(self, threshold: float = 0.5, probability: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold
        self.probability = probability_of("solarize", probability)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        threshold = torch.full((len(images),), self.threshold, device=images.device)
        return on_some(images, draws.happens(self.probability), photometry.solarize, threshold)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, probability={self.probability}"


class Normalize(Augmentation):
    """(image - mean) / std, channel by channel; takes floating point alone, for the result is none of [0, 1].

    The models of this package normalise inside: this is for those that do not, applied to the views. A recipe has no place
    for it, since its views are in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """(B, 3, H, W), uint8 being read as [0, 1] -> float32."""
        return self.change(images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images, draws)

    def change(self, images: Tensor, draws: Draws | None) -> Tensor:
        return (images - self.mean) / self.std
