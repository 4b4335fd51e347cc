"""Coloured handwritten digits with every factor of variation known: the embedded dataset `hf_infomax/colour_digits`.

Real handwriting (scikit-learn's `load_digits`: 1,797 digits of 8x8 pixels and 16 levels, from the UCI set of E.
Alpaydin and C. Kaynak, 1998), so that the class is not a trivial function of a few pixels; synthetic position, size and
colours, so that a representation can be asked what else it kept. Nothing is downloaded: the images are drawn where they
are needed.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator

import datasets
import numpy as np
import pyarrow as pa
from PIL import Image

CANVAS = 32  # pixels
SMALLEST, LARGEST = 16, 28  # pixels; side of the square that the digit is enlarged to, both included
CONTRAST = 0.4  # the two colours differ by more than this in at least one channel
NOISE = 0.02  # standard deviation, on a scale of 0 to 1
BLOCK = 1_000  # images drawn by one random generator: the unit that streams and processes share out
SPLIT_SEED = 0  # which instances are test instances never changes
DRAW_SEEDS = {"train": 1, "test": 2}


@dataclasses.dataclass
class ColourDigitsConfig(datasets.BuilderConfig):
    """How many images each split has."""

    train_images: int = 20_000
    test_images: int = 4_000


@dataclasses.dataclass(frozen=True)
class Factors:
    """What n images are made of; arrays of n rows."""

    instance: np.ndarray  # (n,) int64, row of `load_digits`
    size: np.ndarray  # (n,) int64, pixels
    left: np.ndarray  # (n,) int64, pixels from the canvas' left edge to the digit's square
    top: np.ndarray  # (n,) int64, pixels
    foreground: np.ndarray  # (n, 3) float32 in [0, 1]
    background: np.ndarray  # (n, 3) float32 in [0, 1]


class ColourDigits(datasets.ArrowBasedBuilder):
    """20,000 training and 4,000 test images, 32x32 RGB, of disjoint handwritten instances. Deterministic.

    Columns:
        image: PNG.
        label: the digit, a `ClassLabel` of 10.
        x, y: centre of the digit's square in pixels from the left and the top edge of the canvas (so 16.0, 16.0 is the
            middle, whatever the size).
        size: side of the square in pixels, 16 to 28. The ink usually fills most of its height and less of its width.
        foreground, background: RGB in [0, 1], before noise.

    Tables of encoded images rather than examples one by one: that builds in a few seconds. `datasets` caches the
    result; raise `VERSION` with any change of what is drawn, or old caches go on being used.

    Example:
        >>> builder = ColourDigits()
        >>> builder.download_and_prepare()
        >>> builder.as_dataset("train[:100]")[0]["label"]
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = ColourDigitsConfig
    BUILDER_CONFIGS = [ColourDigitsConfig(name="default", version=VERSION)]
    DEFAULT_CONFIG_NAME = "default"

    def _info(self) -> datasets.DatasetInfo:
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)]),
                "x": datasets.Value("float32"),
                "y": datasets.Value("float32"),
                "size": datasets.Value("int32"),
                "foreground": datasets.List(datasets.Value("float32")),
                "background": datasets.List(datasets.Value("float32")),
            }
        )
        return datasets.DatasetInfo("Handwritten digits with known position, size and colours.", features=features)

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        counts = {"train": self.config.train_images, "test": self.config.test_images}
        return [
            # A list is what `datasets` divides among processes and workers; hence one entry per block.
            datasets.SplitGenerator(split, gen_kwargs={"split": split, "blocks": list(block_sizes(count))})
            for split, count in counts.items()
        ]

    def _generate_tables(self, split: str, blocks: list[tuple[int, int]]) -> Iterator[tuple[int, pa.Table]]:
        digits, labels = handwritten_digits()
        instances = split_instances(labels)[split]
        schema = self.info.features.arrow_schema
        for block, count in blocks:
            # A generator per block: an image does not depend on how the blocks were shared out.
            rng = np.random.default_rng((DRAW_SEEDS[split], block))
            factors = draw_factors(rng, instances, count)
            columns = {
                "image": [{"bytes": png(image), "path": None} for image in render(rng, digits, factors)],
                "label": labels[factors.instance],
                "x": (factors.left + factors.size / 2).astype(np.float32),
                "y": (factors.top + factors.size / 2).astype(np.float32),
                "size": factors.size.astype(np.int32),
                "foreground": list(factors.foreground),
                "background": list(factors.background),
            }
            yield block, pa.Table.from_pydict(columns, schema=schema)


def handwritten_digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 digits, (1797, 8, 8) float32 in [0, 1], and their labels, (1797,) int64."""
    from sklearn.datasets import load_digits  # only who draws the images needs scikit-learn

    source = load_digits()
    return source.images.astype(np.float32) / 16, source.target.astype(np.int64)


def split_instances(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of `handwritten_digits` for "train" and "test", disjoint: one fifth of every class is for testing."""
    rng = np.random.default_rng(SPLIT_SEED)
    train, test = [], []
    for digit in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        test.append(rows[: len(rows) // 5])
        train.append(rows[len(rows) // 5 :])
    return {"train": np.concatenate(train), "test": np.concatenate(test)}


def block_sizes(count: int) -> Iterator[tuple[int, int]]:
    """(block number, images in it) for `count` images."""
    for block, start in enumerate(range(0, count, BLOCK)):
        yield block, min(BLOCK, count - start)


def draw_factors(rng: np.random.Generator, instances: np.ndarray, count: int) -> Factors:
    """Factors of `count` images: instance, size, position and the pair of colours are independent and uniform."""
    size = rng.integers(SMALLEST, LARGEST, count, endpoint=True)
    colours = rng.random((count, 2, 3), dtype=np.float32)
    while (alike := np.abs(colours[:, 0] - colours[:, 1]).max(axis=-1) <= CONTRAST).any():
        colours[alike] = rng.random((alike.sum(), 2, 3), dtype=np.float32)
    return Factors(
        instance=rng.choice(instances, count),
        size=size,
        left=rng.integers(0, CANVAS - size, endpoint=True),
        top=rng.integers(0, CANVAS - size, endpoint=True),
        foreground=colours[:, 0],
        background=colours[:, 1],
    )


def render(rng: np.random.Generator, digits: np.ndarray, factors: Factors) -> np.ndarray:
    """(n, 32, 32, 3) uint8: background (1 - a) + foreground a + noise, with a the enlarged digit's intensity."""
    count = len(factors.instance)
    alpha = np.zeros((count, CANVAS, CANVAS, 1), dtype=np.float32)
    for row, (instance, size, left, top) in enumerate(
        zip(factors.instance, factors.size, factors.left, factors.top, strict=True)
    ):
        enlarged = Image.fromarray(digits[instance]).resize((int(size), int(size)), Image.Resampling.BICUBIC)
        alpha[row, top : top + size, left : left + size, 0] = enlarged
    alpha = alpha.clip(0, 1)  # bicubic interpolation overshoots
    background = factors.background[:, None, None]  # (n, 1, 1, 3)
    foreground = factors.foreground[:, None, None]
    images = background + alpha * (foreground - background)  # (n, 32, 32, 3)
    images += NOISE * rng.standard_normal(images.shape, dtype=np.float32)
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """A PNG file of an (h, w, 3) uint8 image; lightly compressed, since noise hardly compresses."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()
