"""Changes of colour and sharpness with parameters of its own for every image: pure functions.

Each takes (B, 3, H, W) floating point in [0, 1] and a parameter (B,), and equals torchvision's functional of the same
name on a single image; nothing is rounded to 8 bits in between. Greys are ITU-R 601's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .randomness import alike

_GREY = (0.2989, 0.587, 0.114)  # torchvision's digits


def grayscale(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): 0.2989 R + 0.587 G + 0.114 B."""
    red, green, blue = images.unbind(1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2]).unsqueeze_(1)


def adjust_one(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, out: Tensor | None = None
) -> Tensor:
    """Brightness, contrast or saturation: of an image's three factors, at most one is other than 1.

    Towards black, the image's mean grey or its greys (0), or away from them; 1 changes nothing. Three blends in one formula,
    for a batch in which every image takes another: clamp(b c s * image + (1 - c) * mean + (1 - s) * grey, 0, 1). With `out`,
    which may be the images themselves, it is written there.
    """
    grey = grayscale(images)
    mean = grey.mean((2, 3), keepdim=True).mul_(per_image(1 - contrast))
    other = grey.mul_(per_image(1 - saturation)).add_(mean)  # (B, 1, H, W)
    return torch.mul(images, per_image(brightness * contrast * saturation), out=out).add_(other).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` of a full circle, in [-1/2, 1/2]; 0 changes nothing.

    The way through HSV and back in closed form: with C = max - min and the hue h as a part of the circle, channel n of
    the result is max - 2 C + 6 C clamp(d(h + shift, o_n), 1/6, 1/3), where d is the distance on the circle and
    o = (1/2, 5/6, 1/6) lies opposite to red, green and blue. Masks are floating point, for torch compares into bools slowly.
    """
    red, green, blue = images.unbind(1)  # (B, H, W)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # The hue in sixths of the circle, from whichever channel is the largest: red before green before blue.
    from_red = value.clone().eq_(red)
    from_green = value.clone().eq_(green).mul_(1 - from_red)
    from_blue = 1 - from_red - from_green
    sixths = ((green - blue) * from_red).addcmul_(blue - red, from_green).addcmul_(red - green, from_blue)
    sixths.div_(chroma.clamp(min=1e-12)).add_(from_green, alpha=2).add_(from_blue, alpha=4)
    hue = sixths.div_(6).add_(shift[:, None, None]).unsqueeze_(1)
    opposite = hue - torch.tensor([1 / 2, 5 / 6, 1 / 6], device=images.device).view(1, 3, 1, 1)  # (B, 3, H, W)
    distance = opposite.sub_(opposite.round()).abs_()
    lifted = distance.clamp_(1 / 6, 1 / 3).mul_(6 * chroma.unsqueeze(1))
    return lifted.add_(torch.sub(value, chroma, alpha=2).unsqueeze_(1)).clamp_(0, 1)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur by a Gaussian of standard deviation `sigma` pixels, cut at an odd number of taps; edges are reflected.

    A sum of shifted images: up to twice as fast as a grouped convolution on a CPU.
    """
    reach = kernel_size // 2
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    taps = alike(torch.exp, -0.5 * (offset / sigma[:, None]) ** 2)  # (B, k)
    taps = (taps / taps.sum(1, keepdim=True)).to(images.dtype)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    return _weighted_shifts(_weighted_shifts(padded, taps, 2), taps, 3)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at or above the threshold."""
    above = images.clone().ge_(per_image(threshold))
    return images.lerp(1 - images, above)


def solarize_add(images: Tensor, add: Tensor, threshold: float = 128 / 255) -> Tensor:
    """Brighten by `add` what is below the threshold."""
    below = images.clone().lt_(threshold)
    return (images + below.mul_(per_image(add))).clamp_(max=1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits`, 0 to 8, of the 8 of every value."""
    step = per_image(alike(torch.exp2, 8 - bits))
    return (images * 255).round_().div_(step).floor_().mul_(step / 255)


def stretch(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """[low, high], which broadcast over the images, to [0, 1], on the grid of 8 bits; images of low >= high stay."""
    low, high = (low * 255).round_(), (high * 255).round_()
    flat = low.clone().ge_(high)
    scale = torch.lerp(255 / (high - low).clamp_(min=1), torch.ones_like(low), flat)
    # The fraction is cut off, as in Pillow; the little that is added keeps whole numbers whole in float32.
    steps = (images * 255).round_() - low * (1 - flat)
    return steps.mul_(scale).add_(1e-4).floor_().clamp_(0, 255).div_(255)


def equalizer(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 1, 256): what each of 256 values becomes, so that every channel has a flat histogram.

    As far as whole values can be moved, by Pillow's rule.
    """
    codes = (images * 255).round_().clamp_(0, 255).to(torch.int64).flatten(2)  # (B, C, H * W)
    one = torch.ones((), device=images.device).expand(codes.shape)
    counts = torch.zeros(*codes.shape[:2], 256, device=images.device).scatter_add_(2, codes, one)
    highest = codes.amax(2, keepdim=True)
    step = ((codes.shape[2] - counts.gather(2, highest)) / 255).floor_()  # (B, C, 1), pixels for each new value
    lower = counts.cumsum(2).sub_(counts)  # pixels below each value
    table = (lower + (step / 2).floor()).div_(step.clamp(min=1)).floor_().clamp_(max=255)
    ramp = torch.arange(256, device=images.device, dtype=table.dtype)
    return torch.lerp(table, ramp.expand_as(table), step.clone().eq_(0)).div_(255).unsqueeze(2)


def look_up(images: Tensor, table: Tensor) -> Tensor:
    """Replace each of 256 values by an entry of `table` (B, C, 1, 256), every channel by its own."""
    batch, channels, height, width = images.shape
    codes = (
        (images * 255).round_().clamp_(0, 255).to(torch.int32)
    )  # to int64, which `gather` asks for, takes as long again
    codes += torch.arange(0, 256 * batch * channels, 256, dtype=torch.int32, device=images.device).view(batch, -1, 1, 1)
    return table.reshape(-1).index_select(0, codes.view(-1)).view(batch, channels, height, width)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Towards the smoothed image (0) or away from it; 1 changes nothing."""
    factor = per_image(factor)
    return (images * factor).add_((1 - factor) * smooth(images)).clamp_(0, 1)


def smooth(images: Tensor) -> Tensor:
    """Weighted mean of each pixel, 5, and its eight neighbours, 1 each; the pixels of the border stay."""
    if min(images.shape[-2:]) < 3:
        return images.clone()
    lines = images[..., :-2, :] + images[..., 1:-1, :]
    lines += images[..., 2:, :]  # (B, C, H - 2, W), sums of three
    total = lines[..., :-2] + lines[..., 1:-1]
    total.add_(lines[..., 2:]).add_(images[..., 1:-1, 1:-1], alpha=4)
    smoothed = images.clone()
    smoothed[..., 1:-1, 1:-1] = total.div_(13)
    return smoothed


def per_image(parameter: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return parameter.view(-1, 1, 1, 1)


def _weighted_shifts(padded: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Correlate along an axis with taps (B, k) of each image's own; the padding, k - 1 pixels, is used up."""
    length = padded.shape[axis] - taps.shape[1] + 1
    total = padded.narrow(axis, 0, length) * per_image(taps[:, 0])
    for shift in range(1, taps.shape[1]):
        total.addcmul_(padded.narrow(axis, shift, length), per_image(taps[:, shift]))
    return total
