"""A small ray caster in NumPy: solids on a plane -> a picture, its depth, its normals and who is seen where.

Every intersection is analytic and every solid convex, so that a ray and a solid share one interval of distances, and
the nearest of these intervals' starts is what the ray sees. Rays are the columns of (3, n) arrays, one batch an image.

The world is in metres, z up, the ground at z = 0. A camera sees x to the right, y down and z forward; rays have a
forward part of 1, so that the distance along a ray *is* the depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FAR = 30.0  # metres; what is farther is background
BACKGROUND, GROUND, FIRST_SOLID = 0, 1, 2  # what a ray sees; the solids follow in their order

_TINY = 1e-30  # in place of a zero that is divided by
_LIFT = 1e-4  # metres from a surface to where its shadow ray starts
_CLEAR = 6.0  # metres to where haze begins
_CENTRE_AND_QUARTERS = ((0, 0), (-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))  # pixels
_SHARPNESS = 32  # of highlights

Interval = tuple[np.ndarray, np.ndarray]  # distances at which a ray enters and leaves; it misses where enter > leave


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("in,in->n", one, other)


def _slab(origin: np.ndarray, direction: np.ndarray) -> Interval:
    """Where |one coordinate| < 1."""
    inverse = 1 / np.where(direction == 0, _TINY, direction)
    first, second = (-1 - origin) * inverse, (1 - origin) * inverse
    return np.minimum(first, second), np.maximum(first, second)


def _both(one: Interval, other: Interval) -> Interval:
    return np.maximum(one[0], other[0]), np.minimum(one[1], other[1])


def _roots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two roots of a t² + 2 b t + c, the lower one first, and where they are real."""
    a = np.where(a == 0, _TINY, a)
    square = b * b - a * c
    root = np.sqrt(np.maximum(square, 0)) / abs(a)
    middle = -b / a
    return middle - root, middle + root, square > 0


def _round(o: np.ndarray, d: np.ndarray) -> Interval:
    """Inside of the unit sphere, or of the infinite unit cylinder where only x and y are given."""
    low, high, real = _roots(_dot(d, d), _dot(o, d), _dot(o, o) - 1)
    return np.where(real, low, np.inf), high


def _box_interval(o: np.ndarray, d: np.ndarray) -> Interval:
    return _both(_both(_slab(o[0], d[0]), _slab(o[1], d[1])), _slab(o[2], d[2]))


def _cylinder_interval(o: np.ndarray, d: np.ndarray) -> Interval:
    return _both(_round(o[:2], d[:2]), _slab(o[2], d[2]))


def _cone_interval(o: np.ndarray, d: np.ndarray) -> Interval:
    """Apex at z = 1, a disc of radius 1 at z = -1; the mirrored cone above the apex is cut off with the slab."""
    above = (1 - o[2]) / 2  # the cone's radius at the ray's origin
    slope = -d[2] / 2
    a = d[0] * d[0] + d[1] * d[1] - slope * slope
    b = o[0] * d[0] + o[1] * d[1] - above * slope
    low, high, real = _roots(a, b, o[0] * o[0] + o[1] * o[1] - above * above)
    steep = a < 0  # such a ray leaves one cone for the other: inside before the first root or after the second
    enter = np.where(steep, np.where(d[2] < 0, high, -np.inf), np.where(real, low, np.inf))
    leave = np.where(steep & (d[2] < 0), np.inf, np.where(steep, low, high))
    return _both((enter, leave), _slab(o[2], d[2]))


def _box_normal(p: np.ndarray) -> np.ndarray:
    axis = abs(p).argmax(0)
    return np.where(np.arange(3)[:, None] == axis, np.sign(p), 0.0)


def _cylinder_normal(p: np.ndarray) -> np.ndarray:
    cap = abs(p[2]) > np.hypot(p[0], p[1])
    return np.where(cap, [[0.0], [0.0], [1.0]] * np.sign(p[2]), p * [[1.0], [1.0], [0.0]])


def _cone_normal(p: np.ndarray) -> np.ndarray:
    radius = (1 - p[2]) / 2
    cap = abs(p[2] + 1) < abs(np.hypot(p[0], p[1]) - radius)
    return np.where(cap, [[0.0], [0.0], [-1.0]], np.stack([p[0], p[1], radius / 2]))


@dataclass(frozen=True)
class Shape:
    """A convex solid within [-1, 1]³, as three functions.

    Attributes:
        interval: origin (3, n or 1) and direction (3, n or 1) of rays -> where they enter and leave, (n,) each.
        normal: points on its surface (3, n) -> outward normals (3, n) of any length.
        support: directions (3, n) -> the farthest that the solid reaches along them, (n,).
    """

    interval: Callable[[np.ndarray, np.ndarray], Interval]
    normal: Callable[[np.ndarray], np.ndarray]
    support: Callable[[np.ndarray], np.ndarray]


SHAPES = {
    "sphere": Shape(_round, lambda p: p, lambda d: np.sqrt(_dot(d, d))),
    "box": Shape(_box_interval, _box_normal, lambda d: abs(d).sum(0)),
    "cylinder": Shape(_cylinder_interval, _cylinder_normal, lambda d: np.hypot(d[0], d[1]) + abs(d[2])),
    "cone": Shape(_cone_interval, _cone_normal, lambda d: np.maximum(d[2], np.hypot(d[0], d[1]) - d[2])),
}

# Waves (m, n) in [-1, 1] -> a share of the second colour in [-1, 1]; the factor makes edges crisp.
PATTERNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda waves: waves.mean(0) * 0.2 - 0.8,  # a trace of the second colour
    "checker": lambda waves: (waves.prod(0) * 12).clip(-1, 1),
    "stripes": lambda waves: (waves[0] * 6).clip(-1, 1),
    "noise": lambda waves: (waves.mean(0) * 2).clip(-1, 1),
}


@dataclass(frozen=True)
class Texture:
    """Two colours, mixed by a pattern of plane waves in space: sin(waves · point + phases)."""

    pattern: str  # a key of PATTERNS
    colours: np.ndarray  # (2, 3) linear RGB in [0, 1]
    waves: np.ndarray  # (m, 3) radians a metre
    phases: np.ndarray  # (m,) radians

    def at(self, points: np.ndarray) -> np.ndarray:
        """Colours (3, n) at points (3, n)."""
        share = PATTERNS[self.pattern](np.sin(self.waves @ points + self.phases[:, None])) / 2 + 0.5  # (n,)
        first, second = self.colours[:, :, None]
        return first + share * (second - first)


@dataclass(frozen=True)
class Solid:
    """A shape, stretched, turned and put somewhere."""

    shape: str  # a key of SHAPES
    centre: np.ndarray  # (3,) metres
    axes: np.ndarray  # (3, 3), its columns the shape's axes in the world
    size: np.ndarray  # (3,) half of its extent along its axes, metres
    texture: Texture
    gloss: float = 0.0  # strength of the highlight, 0 to 1

    def interval(self, origin: np.ndarray, direction: np.ndarray) -> Interval:
        """Where rays enter and leave; see `Shape`."""
        return SHAPES[self.shape].interval(self._local(origin - self.centre[:, None]), self._local(direction))

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals (3, n) at points (3, n) of the surface."""
        normal = SHAPES[self.shape].normal(self._local(points - self.centre[:, None]))
        normal = self.axes @ (normal / self.size[:, None])
        return normal / np.sqrt(_dot(normal, normal))

    def support(self, directions: np.ndarray) -> np.ndarray:
        """How far from its centre, in metres, it reaches along unit vectors (3, n)."""
        return SHAPES[self.shape].support(self.axes.T @ directions * self.size[:, None])

    @property
    def radius(self) -> float:
        """Of a ball about the centre that holds it, metres."""
        return float(self.size.max() if self.shape == "sphere" else np.sqrt((self.size**2).sum()))

    def colours(self, points: np.ndarray) -> np.ndarray:
        """The texture (3, n) at points (3, n); it moves with the solid."""
        return self.texture.at(self.axes.T @ (points - self.centre[:, None]))

    def _local(self, vectors: np.ndarray) -> np.ndarray:
        return self.axes.T @ vectors / self.size[:, None]


@dataclass(frozen=True)
class Camera:
    """A pinhole whose optical axis meets the middle of a square image."""

    position: np.ndarray  # (3,) metres
    axes: np.ndarray  # (3, 3), its rows right, down and forward in the world
    focal: float  # focal length over the image's width

    def rays(self, size: int, offsets: tuple[tuple[float, float], ...] = ((0, 0),)) -> np.ndarray:
        """Directions (3, len(offsets) * size * size) through pixels' centres moved by offsets in pixels (x, y)."""
        pixel = np.arange(size) + 0.5 - size / 2
        x, y = (
            np.stack([np.broadcast_to(grid + offset[axis], (size, size)) for offset in offsets])
            for axis, grid in ((0, pixel[None, :]), (1, pixel[:, None]))
        )
        flat = np.stack([x.ravel(), y.ravel()]) / (self.focal * size)
        return self.axes.T[:, :2] @ flat + self.axes[2][:, None]


@dataclass(frozen=True)
class Scene:
    """Solids on a ground under a sky and one distant light, and the camera that sees them."""

    solids: tuple[Solid, ...]
    camera: Camera
    ground: Texture
    sky: np.ndarray  # (2, 3) linear RGB at the horizon and at the zenith
    light: np.ndarray  # (3,) unit vector towards the light
    ambient: float  # light from the sky; that of the lamp is 1


@dataclass(frozen=True)
class Rendering:
    """What a camera sees; square maps. Depth, normals and surfaces are those of the pixels' central rays."""

    image: np.ndarray  # (size, size, 3) uint8
    depth: np.ndarray  # (size, size) float64, metres along the optical axis; inf for the background
    normals: np.ndarray  # (size, size, 3) float64: x right, y down, z towards the camera; 0 for the background
    surface: np.ndarray  # (size, size) uint8: BACKGROUND, GROUND, or FIRST_SOLID + the solid's place


def render(scene: Scene, size: int) -> Rendering:
    """The picture (2x2 rays a pixel, hard shadows) and the exact geometry behind it.

    Example:
        >>> red = Texture("plain", np.array([[0.8, 0.1, 0.1]] * 2), np.zeros((1, 3)), np.zeros(1))
        >>> ball = Solid("sphere", np.array([0.0, 3.0, 0.5]), np.eye(3), np.full(3, 0.5), red)
        >>> ahead = Camera(np.array([0.0, 0.0, 0.5]), np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), focal=1.0)
        >>> scene = Scene((ball,), ahead, red, np.ones((2, 3)), np.array([0.0, 0.0, 1.0]), ambient=0.4)
        >>> float(render(scene, 65).depth[32, 32])
        2.5
    """
    rays = scene.camera.rays(size, _CENTRE_AND_QUARTERS)  # (3, 5 * size * size)
    depth, surface = trace(scene, rays)
    pixels = size * size
    colours = _colours(scene, rays[:, pixels:], depth[pixels:], surface[pixels:])  # (3, 4 * size * size)
    colours = colours.reshape(3, 4, size, size).mean(1).transpose(1, 2, 0)
    rays, depth, surface = rays[:, :pixels], depth[:pixels], surface[:pixels]
    normals = scene.camera.axes @ _normals(scene, _points(scene, rays, depth), surface)
    normals[2] *= -1
    return Rendering(
        image=(np.sqrt(colours.clip(0, 1)) * 255).round().astype(np.uint8),  # a root for the screen's gamma
        depth=depth.reshape(size, size),
        normals=normals.reshape(3, size, size).transpose(1, 2, 0),
        surface=surface.reshape(size, size),
    )


def trace(scene: Scene, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera rays (3, n) -> depth in metres (n,), inf for the background, and the surface seen (n,) uint8."""
    origin = scene.camera.position[:, None]
    depth = -origin[2] / np.where(rays[2] < 0, rays[2], -_TINY)
    depth[depth > FAR] = np.inf
    surface = np.where(np.isfinite(depth), GROUND, BACKGROUND).astype(np.uint8)
    squares = _dot(rays, rays)
    for name, solid in enumerate(scene.solids, start=FIRST_SOLID):
        towards = solid.centre - scene.camera.position
        # Of the rays only those that meet the ball around the solid are worth the exact question.
        near = np.flatnonzero((towards @ rays) ** 2 >= squares * (towards @ towards - solid.radius**2))
        enter, leave = solid.interval(origin, rays[:, near])
        seen = (enter < leave) & (enter > 0) & (enter < np.minimum(depth[near], FAR))
        depth[near[seen]] = enter[seen]
        surface[near[seen]] = name
    return depth, surface


def _points(scene: Scene, rays: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return scene.camera.position[:, None] + rays * np.where(np.isfinite(depth), depth, 0)


def _normals(scene: Scene, points: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Unit normals (3, n) in the world, 0 for the background."""
    normals = np.zeros_like(points)
    normals[2] = surface == GROUND
    for name, solid in enumerate(scene.solids, start=FIRST_SOLID):
        here = np.flatnonzero(surface == name)
        normals[:, here] = solid.normal(points[:, here])
    return normals


def _shaded(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Which points (3, n) a solid hides from the light."""
    shaded = np.zeros(points.shape[1], dtype=bool)
    light = scene.light[:, None]
    for solid in scene.solids:
        towards = solid.centre[:, None] - points
        along = scene.light @ towards
        near = np.flatnonzero((_dot(towards, towards) - along * along < solid.radius**2) & (along > -solid.radius))
        enter, leave = solid.interval(points[:, near], light)
        shaded[near] |= (enter < leave) & (leave > 0)
    return shaded


def _lamp(scene: Scene, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """The lamp's light on points of surfaces, (n,): the cosine of its angle, 0 behind something."""
    light = (scene.light @ normals).clip(0)
    facing = np.flatnonzero(light)
    light[facing[_shaded(scene, points[:, facing] + _LIFT * normals[:, facing])]] = 0
    return light


def _highlight(scene: Scene, rays: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Blinn and Phong's, (n,): how close a normal is to the middle between the light and the eye."""
    half = scene.light[:, None] - rays / np.sqrt(_dot(rays, rays))
    return (_dot(half, normals) / np.sqrt(_dot(half, half))).clip(0) ** _SHARPNESS


def _colours(scene: Scene, rays: np.ndarray, depth: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Linear RGB (3, n): texture times the sky's and the lamp's light, highlights, then haze; the sky behind."""
    colours = np.empty_like(rays)
    horizon, zenith = scene.sky[:, :, None]
    empty = np.flatnonzero(surface == BACKGROUND)
    up = rays[2, empty] / np.sqrt(_dot(rays[:, empty], rays[:, empty]))
    colours[:, empty] = horizon + np.sqrt(up.clip(0)) * (zenith - horizon)
    full = np.flatnonzero(surface != BACKGROUND)
    rays, depth, surface = rays[:, full], depth[full], surface[full]
    points = _points(scene, rays, depth)
    normals = _normals(scene, points, surface)
    lamp = _lamp(scene, points, normals)
    # The sky lights what faces it: twice as much from above as from below.
    lit = scene.ambient * (0.75 + 0.25 * normals[2]) + lamp  # (n,)
    shaded = np.empty_like(points)
    on_ground = np.flatnonzero(surface == GROUND)
    shaded[:, on_ground] = scene.ground.at(points[:, on_ground]) * lit[on_ground]
    for name, solid in enumerate(scene.solids, start=FIRST_SOLID):
        here = np.flatnonzero(surface == name)
        shaded[:, here] = solid.colours(points[:, here]) * lit[here]
        glossy = here[lamp[here] > 0] if solid.gloss else here[:0]
        shaded[:, glossy] += solid.gloss * _highlight(scene, rays[:, glossy], normals[:, glossy])
    haze = ((depth - _CLEAR) / (FAR - _CLEAR)).clip(0)
    colours[:, full] = shaded + np.sqrt(haze) * (horizon - shaded)
    return colours
