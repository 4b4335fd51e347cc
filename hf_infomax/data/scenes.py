"""Small rendered RGB-D scenes with every label known: the embedded dataset `hf_infomax/scenes`.

Solids stand on a textured ground under a random camera and light. A picture comes with its depth, normals, classes,
instances and boxes, and in the configuration "clips" with the pictures before and after it: what views of several
modalities, and tasks from segmentation to detection, are tried on where nothing can be downloaded. The image is no
photograph; its geometry is exact (`rendering`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np

from hf_infomax.models.errors import UsageError

from .colour_digits import png
from .rendering import BACKGROUND, FIRST_SOLID, GROUND, PATTERNS, SHAPES, Camera, Scene, Solid, Texture, render, trace

SEMANTIC = ("background", "ground", *SHAPES)  # names of the values of `semantic`
MILLIMETRES = 1_000  # depth: units in a metre
LEAST_PIXELS = 12  # a solid that shows fewer is in the maps and not in `objects`
BLOCK = 100  # scenes that streams and processes share out at a time
DRAW_SEEDS = {"train": 1, "test": 2}

SPREAD = 1.4  # metres; radius of the disc that solids start on
GAP = 0.03  # metres between two solids at least
GLANCE = 32  # pixels; width of the picture by which a draw is judged


@dataclasses.dataclass
class ScenesConfig(datasets.BuilderConfig):
    """How many scenes each split has, how large their pictures are and how many of each.

    Attributes:
        image_size: width and height in pixels.
        frames: pictures of a scene, one a row; from 2 on the camera and solids move.
        train_scenes, test_scenes: scenes, not rows.
        seed: of all that is drawn.
    """

    image_size: int = 64
    frames: int = 1
    train_scenes: int = 2_000
    test_scenes: int = 500
    seed: int = 0

    def check(self) -> None:
        """A `UsageError` for a number out of range."""
        for name, least in {"image_size": 16, "frames": 1, "train_scenes": 1, "test_scenes": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} of the scenes is {getattr(self, name)}: give a number from {least} on.")


class Scenes(datasets.GeneratorBasedBuilder):
    """Rendered scenes: 2,000 for training and 500 for testing, of 64x64 pixels. Deterministic.

    Configurations: "default"; "large", the same scenes at 128x128; "clips", 120 and 20 sequences of 16 frames at 64x64,
    under a moving camera and with moving solids. Any number is a keyword: `Scenes(image_size=96, train_scenes=10)`.

    Columns, all images PNG and of one size:
        image: RGB.
        depth: 16 bits, distance along the optical axis in millimetres; 0 where nothing was measured (the sky, and what
            is farther than 30 m).
        normals: RGB, the surface's unit normal in the camera's frame, x to the right, y down, z towards the camera, as
            (n + 1) / 2 * 255: `n = value / 255 * 2 - 1`, to be divided by its norm. (128, 128, 128), a norm below 0.1,
            where nothing was measured.
        semantic: 8 bits, the class: 0 background, 1 ground, 2 sphere, 3 box, 4 cylinder, 5 cone (`SEMANTIC`).
        instances: 8 bits, 0 where there is no solid, else the solid's number from 1 on, the same in all frames of a
            sequence.
        objects: the solids of which at least 12 pixels are visible (all are in the maps), as lists: `id`, the value in
            `instances`; `bbox`, [x, y, width, height] in pixels as in COCO, of the visible part; `category`, a
            `ClassLabel` (its value + 2 is that of `semantic`); `area`, visible pixels.
        focal: focal length in pixels. A pixel's centre (u, v), half integers, at the depth z is the point
            ((u - s / 2) z / focal, (v - s / 2) z / focal, z), where s is the image's size.
        scene: its number in the split. "clips" has instead:
        sequence, frame: the scene's number and 0 to 15, in the order of the rows.

    Raises:
        UsageError: a number of the configuration is out of range.

    The labels are those of the ray through a pixel's centre; the image averages 2x2 rays. A row depends on the seed,
    the split, the number of frames and the scene's number alone, and is the same to the byte on one machine; elsewhere
    another mathematics library may round a value to its neighbour. `datasets` caches the result; raise `VERSION` with
    any change of what is drawn, or old caches go on being used.

    Example:
        >>> builder = Scenes(train_scenes=10, test_scenes=2)
        >>> builder.download_and_prepare()
        >>> builder.as_dataset("train")[0]["depth"].size
        (64, 64)
    """

    VERSION = datasets.Version("1.1.0")
    BUILDER_CONFIG_CLASS = ScenesConfig
    BUILDER_CONFIGS = [
        ScenesConfig(name="default", version=VERSION),
        ScenesConfig(name="large", version=VERSION, image_size=128),
        ScenesConfig(name="clips", version=VERSION, frames=16, train_scenes=120, test_scenes=20),
    ]
    DEFAULT_CONFIG_NAME = "default"

    def _info(self) -> datasets.DatasetInfo:
        self.config.check()  # here, for `datasets` sets keywords on a finished configuration
        whole = datasets.Value("int32")
        images = {name: datasets.Image() for name in ("image", "depth", "normals", "semantic", "instances")}
        objects = {
            "id": datasets.List(whole),
            "bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
            "category": datasets.List(datasets.ClassLabel(names=list(SHAPES))),
            "area": datasets.List(whole),
        }
        place = {"scene": whole} if self.config.frames == 1 else {"sequence": whole, "frame": whole}
        features = datasets.Features({**images, "objects": objects, "focal": datasets.Value("float32"), **place})
        description = f"Rendered RGB-D scenes. Values of semantic: {', '.join(SEMANTIC)}."
        return datasets.DatasetInfo(description, features=features)

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        counts = {"train": self.config.train_scenes, "test": self.config.test_scenes}
        return [
            # A list is what `datasets` divides among processes and workers; hence one entry per block.
            datasets.SplitGenerator(split, gen_kwargs={"split": split, "blocks": list(scene_blocks(count))})
            for split, count in counts.items()
        ]

    def _generate_examples(self, split: str, blocks: list[tuple[int, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        frames = self.config.frames
        for first, count in blocks:
            for number in range(first, first + count):
                # A generator per scene: it does not depend on how the scenes were shared out.
                rng = np.random.default_rng((self.config.seed, DRAW_SEEDS[split], frames, number))
                for frame, scene in enumerate(draw_scene(rng, frames)):
                    place = {"scene": number} if frames == 1 else {"sequence": number, "frame": frame}
                    yield number * frames + frame, annotated(scene, self.config.image_size) | place


def scene_blocks(count: int) -> Iterator[tuple[int, int]]:
    """(first scene, scenes) of the blocks of `count` scenes."""
    for first in range(0, count, BLOCK):
        yield first, min(BLOCK, count - first)


def annotated(scene: Scene, size: int) -> dict[str, Any]:
    """The columns of a picture of a scene, but for its number; see `Scenes`."""
    seen = render(scene, size)
    classes = [SEMANTIC.index(solid.shape) for solid in scene.solids]
    depth = np.where(np.isfinite(seen.depth), seen.depth, 0)
    instances = np.maximum(seen.surface, GROUND) - GROUND
    images = {
        "image": seen.image,
        "depth": (depth * MILLIMETRES).round().astype(np.uint16),
        "normals": ((seen.normals + 1) / 2 * 255).round().astype(np.uint8),
        "semantic": np.array([BACKGROUND, GROUND, *classes], dtype=np.uint8)[seen.surface],
        "instances": instances,
    }
    return {name: {"bytes": png(image), "path": None} for name, image in images.items()} | {
        "objects": visible_objects(instances, [solid.shape for solid in scene.solids]),
        "focal": scene.camera.focal * size,
    }


def visible_objects(instances: np.ndarray, shapes: list[str]) -> dict[str, list]:
    """Number, box, category and area of the solids that show at least `LEAST_PIXELS` pixels.

    Args:
        instances: (h, w), 0 or the number of a solid from 1 on.
        shapes: of the solids 1, 2, ...
    """
    objects: dict[str, list] = {"id": [], "bbox": [], "category": [], "area": []}
    for number, shape in enumerate(shapes, start=1):
        rows, columns = np.nonzero(instances == number)
        if len(rows) < LEAST_PIXELS:
            continue
        x, y = columns.min(), rows.min()
        objects["id"].append(number)
        objects["bbox"].append([x, y, columns.max() + 1 - x, rows.max() + 1 - y])
        objects["category"].append(shape)
        objects["area"].append(len(rows))
    return objects


def draw_scene(rng: np.random.Generator, frames: int = 1) -> list[Scene]:
    """A random scene at `frames` moments, drawn again until its first and last picture show something."""
    while True:
        solids, steps = _draw_solids(rng, frames)
        cameras = _draw_cameras(rng, frames)
        ground = _draw_texture(rng, rng.uniform(2, 8), flat=True)
        horizon, zenith = rng.uniform(0.55, 0.95, 3), rng.uniform([0.1, 0.2, 0.4], [0.5, 0.6, 0.9])
        tilt, turn = np.radians(rng.uniform(30, 70)), rng.uniform(0, 2 * np.pi)
        light = np.array([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)])
        rest = {"ground": ground, "sky": np.stack([horizon, zenith]) ** 2, "light": light}
        rest["ambient"] = rng.uniform(0.25, 0.5)
        moments = [
            Scene(
                tuple(_moved(solid, step * moment) for solid, step in zip(solids, steps, strict=True)), camera, **rest
            )
            for moment, camera in enumerate(cameras)
        ]
        if _shows_enough(moments[0]) and _shows_enough(moments[-1]):
            return moments


def _shows_enough(scene: Scene) -> bool:
    """Whether a small picture of it has two solids, none of them in the way of the rest, and some ground."""
    _, surface = trace(scene, scene.camera.rays(GLANCE))
    shares = np.bincount(surface, minlength=FIRST_SOLID + len(scene.solids)) / GLANCE**2
    solids = shares[FIRST_SOLID:]
    return (solids > 0.01).sum() >= 2 and solids.max() < 0.22 and solids.sum() > 0.08 and shares[GROUND] > 0.2


def _draw_cameras(rng: np.random.Generator, frames: int) -> list[Camera]:
    """One for each frame, on an arc around a point near the middle of the solids."""
    view = np.radians(rng.uniform(38, 62))
    target = np.append(rng.uniform(-0.25, 0.25, 2), rng.uniform(0.1, 0.4))
    distance = SPREAD / np.tan(view / 2) * rng.uniform(0.9, 1.3) + 0.5
    height, turn, roll = np.radians([rng.uniform(8, 50), rng.uniform(0, 360), rng.normal(0, 3)])
    steps = rng.normal(0, [0.02, np.radians(0.5), np.radians(2), np.radians(0.4)])
    cameras = []
    for moment in range(frames):
        reach, up, around, lean = np.array([np.log(distance), height, turn, roll]) + moment * steps
        up = np.clip(up, np.radians(6), np.radians(55))
        forward = -np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
        level = np.array([-np.sin(around), np.cos(around), 0.0])  # to the right
        down = np.cross(forward, level)
        axes = [np.cos(lean) * level + np.sin(lean) * down, np.cos(lean) * down - np.sin(lean) * level, forward]
        cameras.append(Camera(target - np.exp(reach) * forward, np.stack(axes), 0.5 / np.tan(view / 2)))
    return cameras


def _draw_solids(rng: np.random.Generator, frames: int) -> tuple[list[Solid], np.ndarray]:
    """Solids that stand apart in every frame, and how they move: (n, 3) metres along x and y and radians, a frame."""
    large, small = rng.integers(3, 6), rng.integers(0, 5)
    moments = np.arange(frames)[:, None]
    solids, steps, tracks = [], [], []
    for scale in (*rng.uniform(0.28, 0.5, large), *rng.uniform(0.1, 0.2, small)):
        shape = str(rng.choice(list(SHAPES)))
        solid = _draw_solid(rng, shape, scale)
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        # A circle around it, as seen from above; a little wider, as the directions are only 32.
        reach = solid.support(np.stack([np.cos(angles), np.sin(angles), 0 * angles])).max() * 1.01
        for _ in range(30):
            moves = rng.random() < 0.6 or not solids  # one at least
            step = rng.normal(0, [0.04, 0.04, 0.06]) * moves
            radius, angle = SPREAD * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            start = radius * np.array([np.cos(angle), np.sin(angle)])
            track = start + moments * step[:2]  # (frames, 2)
            if all((np.hypot(*(track - other).T) > reach + other_reach + GAP).all() for other, other_reach in tracks):
                tracks.append((track, reach))
                solids.append(_moved(solid, np.append(start, 0)))
                steps.append(step)
                break
    return solids, np.array(steps)


def _draw_solid(rng: np.random.Generator, shape: str, scale: float) -> Solid:
    """A solid that rests on the ground above the origin; `scale` is about half of its extent in metres."""
    sizes = {
        "sphere": np.full(3, 0.9),
        "box": rng.uniform(0.55, 1.0, 3),
        "cylinder": rng.uniform([0.5, 0, 0.5], [0.8, 0, 1.2]),
        "cone": rng.uniform([0.7, 0, 0.7], [1.0, 0, 1.3]),
    }
    size = sizes[shape] * scale
    size[1] = size[1] or size[0]  # what is round has one radius
    # Lying on its side: a cone leans farther than a cylinder, until its flank is on the ground.
    lean = {"cylinder": np.pi / 2, "cone": np.pi / 2 + np.arctan2(size[0], 2 * size[2])}.get(shape, 0.0)
    axes = _turn(rng.uniform(0, 2 * np.pi)) @ _lean(lean * (rng.random() < 0.35))
    texture = _draw_texture(rng, rng.uniform(0.8, 2.5) * np.pi / scale)
    solid = Solid(shape, np.zeros(3), axes, size, texture, gloss=rng.choice([0, 0.25, 0.5]))
    lowest = solid.support(np.array([[0.0], [0.0], [-1.0]])).item()
    return dataclasses.replace(solid, centre=np.array([0.0, 0.0, lowest]))


def _moved(solid: Solid, step: np.ndarray) -> Solid:
    """It, moved along x and y and turned about the vertical."""
    return dataclasses.replace(solid, centre=solid.centre + step * [1, 1, 0], axes=_turn(step[2]) @ solid.axes)


def _turn(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])


def _lean(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def _draw_texture(rng: np.random.Generator, frequency: float, flat: bool = False) -> Texture:
    """Two different colours in a pattern of `frequency` radians a metre; the ground's varies in x and y only."""
    pattern = str(rng.choice(list(PATTERNS)))
    colours = rng.random((2, 3))
    while abs(colours[0] - colours[1]).max() < 0.35 or colours.max(1).min() < 0.35:
        colours = rng.random((2, 3))
    colours = (0.5 + 0.35 * (colours - 0.5) + rng.uniform(-0.15, 0.15)) if flat else 0.1 + 0.85 * colours
    axes = np.eye(3) if pattern == "checker" else rng.normal(0, 1, (6, 3))
    phases = rng.uniform(0, 2 * np.pi, len(axes))
    if flat:
        axes[:, 2] = 0
        phases[2] = np.pi / 2 if pattern == "checker" else phases[2]  # the third wave of a checker is 1 everywhere
    if pattern == "stripes":
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return Texture(pattern, colours**2, axes * frequency, phases)
