"""Speed of the colour spaces: batched, against scikit-image image by image, on the same float32 pixels. A part of benchmark.py."""

from collections.abc import Iterator

from skimage import color

from benchmark_views import images_of
from hf_infomax.models import colors
from stopwatch import interleaved

SIDE, IMAGES = 32, 256
SPACES = ("lab", "ycbcr", "ydbdr", "yuv", "hsv", "hed", "xyz")


def measure(device: str, dataset: str) -> Iterator[tuple[str, dict[str, float]]]:
    """(space, seconds an image by name): "batched" and "scikit-image"."""
    batch = images_of(SIDE, IMAGES, dataset).to(device) / 255
    images = list(batch.permute(0, 2, 3, 1).cpu().numpy())
    for space in SPACES:
        convert, reference = getattr(colors, f"rgb_to_{space}"), getattr(color, f"rgb2{space}")
        works = {
            "batched": lambda convert=convert: convert(batch),
            "scikit-image": lambda reference=reference: [reference(image) for image in images],
        }
        yield space, {name: seconds / IMAGES for name, seconds in interleaved(works, seconds=2.0).items()}
