import dataclasses

import numpy as np
import pytest

from hf_infomax.data.rendering import (
    BACKGROUND,
    FAR,
    FIRST_SOLID,
    GROUND,
    PATTERNS,
    SHAPES,
    Camera,
    Scene,
    Solid,
    Texture,
    render,
)
from hf_infomax.data.scenes import draw_scene

AHEAD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # a level camera that looks along y

INSIDE = {
    "sphere": lambda p: (p**2).sum(0) < 1,
    "box": lambda p: abs(p).max(0) < 1,
    "cylinder": lambda p: (np.hypot(p[0], p[1]) < 1) & (abs(p[2]) < 1),
    "cone": lambda p: (np.hypot(p[0], p[1]) < (1 - p[2]) / 2) & (abs(p[2]) < 1),
}


def plain(*colour):
    return Texture("plain", np.array([colour, colour]), np.zeros((1, 3)), np.zeros(1))


def scene_of(*solids, camera=None, **changes):
    camera = camera or Camera(np.array([0.0, 0.0, 1.0]), AHEAD, focal=1.0)
    rest = {"light": np.array([0.0, 0.0, 1.0]), "ambient": 0.4, "sky": np.full((2, 3), 0.5)}
    return Scene(solids, camera, **{"ground": plain(0.2, 0.3, 0.4), **rest, **changes})


def solid(shape, centre, size, axes=None):
    return Solid(shape, np.array(centre), np.eye(3) if axes is None else axes, np.array(size), plain(0.8, 0.1, 0.1))


def pixel_rays(size, focal=1.0):
    """(size, size, 3): through pixels' centres, x right, y down, z forward, written with a meshgrid."""
    x, y = np.meshgrid(np.arange(size) + 0.5 - size / 2, np.arange(size) + 0.5 - size / 2)
    return np.stack([x / (focal * size), y / (focal * size), np.ones_like(x)], axis=-1)


def rotation(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def test_a_sphere_has_the_depth_and_the_normals_of_the_closed_form():
    centre, radius = np.array([0.3, -0.2, 4.0]), 0.6  # seen from the camera
    seen = render(scene_of(solid("sphere", [0.3, 4.0, 1.2], [radius] * 3)), 48)
    rays = pixel_rays(48)
    a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - radius**2
    hit = b**2 > a * c
    np.testing.assert_array_equal(seen.surface == FIRST_SOLID, hit)
    depth = (b[hit] - np.sqrt(b[hit] ** 2 - a[hit] * c)) / a[hit]
    np.testing.assert_allclose(seen.depth[hit], depth, rtol=1e-12)
    normals = (rays[hit] * depth[:, None] - centre) / radius * [1, 1, -1]
    np.testing.assert_allclose(seen.normals[hit], normals, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_a_solid_is_where_a_march_along_the_ray_first_finds_it(shape, seed):
    size, axes = np.random.default_rng(seed).uniform(0.3, 0.9, 3), rotation(seed)
    thing = solid(shape, [0.1, 3.0, 4.0], size, axes)
    seen = render(scene_of(thing, camera=Camera(np.array([0.0, 0.0, 4.0]), AHEAD, 1.0)), 24)
    steps = np.linspace(1, 5, 2001)  # metres
    points = pixel_rays(24)[:, :, None] * steps[:, None]  # (24, 24, steps, 3), x right, y down, z forward
    world = points @ AHEAD + [0, 0, 4.0]
    local = ((world - thing.centre) @ axes / size).reshape(-1, 3).T
    inside = INSIDE[shape](local).reshape(points.shape[:3])
    first = np.where(inside.any(-1), steps[inside.argmax(-1)], np.inf)
    on_solid = seen.surface == FIRST_SOLID
    # A march may step over a corner that it ought to have met, and no more than that.
    assert (on_solid | ~inside.any(-1)).all()
    assert (on_solid & ~inside.any(-1)).sum() <= 3
    both = on_solid & inside.any(-1)
    assert both.sum() > 15
    ahead = first[both] - seen.depth[both]
    assert ahead.min() > -1e-9
    assert (ahead < 0.0021).mean() > 0.97  # as above


@pytest.mark.parametrize("shape", SHAPES)
def test_support_is_the_farthest_that_points_inside_reach(shape):
    rng = np.random.default_rng(0)
    thing = solid(shape, [0.0, 0, 0], [0.4, 0.7, 0.9], rotation(1))
    local = rng.uniform(-1, 1, (3, 200_000))
    points = thing.axes @ (local[:, INSIDE[shape](local)] * thing.size[:, None])
    directions = rng.normal(size=(3, 20))
    directions /= np.linalg.norm(directions, axis=0)
    reach = (directions.T @ points).max(axis=1)
    assert (reach <= thing.support(directions)).all()
    np.testing.assert_allclose(reach, thing.support(directions), atol=0.05)
    assert np.linalg.norm(points, axis=0).max() <= thing.radius


@pytest.mark.parametrize("number", [0, 1, 3, 4])
def test_normals_are_those_of_the_unprojected_depth(number):
    size = 160
    (scene,) = draw_scene(np.random.default_rng(number))
    seen = render(scene, size)
    points = pixel_rays(size, scene.camera.focal) * np.where(np.isfinite(seen.depth), seen.depth, 0)[..., None]
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    estimate = np.cross(down, across) * [1, 1, -1]
    estimate /= np.maximum(np.linalg.norm(estimate, axis=-1, keepdims=True), 1e-12)
    cosine = (estimate * seen.normals[1:-1, 1:-1]).sum(-1)
    around = [(slice(1 + y, size - 1 + y), slice(1 + x, size - 1 + x)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    middle = seen.surface[1:-1, 1:-1]
    whole = np.all([seen.surface[at] == middle for at in around], axis=0) & (middle != BACKGROUND)
    bend = np.max([np.linalg.norm(seen.normals[at] - seen.normals[1:-1, 1:-1], axis=-1) for at in around], axis=0)
    flat, curved = whole & (bend < 1e-9), whole & (bend > 1e-9) & (bend < 0.15)
    assert curved.sum() > 200
    assert cosine[flat].min() > 1 - 1e-9
    assert np.degrees(np.arccos(cosine[curved].clip(-1, 1))).max() < 4


def test_normals_are_unit_vectors_that_face_the_camera_and_nothing_where_there_is_nothing():
    (scene,) = draw_scene(np.random.default_rng(9))
    seen = render(scene, 64)
    rays = pixel_rays(64, scene.camera.focal) * [1, 1, -1]
    some = seen.surface != BACKGROUND
    np.testing.assert_allclose(np.linalg.norm(seen.normals[some], axis=-1), 1)
    assert ((seen.normals * rays).sum(-1)[some] < 0).all()
    assert (seen.normals[~some] == 0).all()


def test_the_ground_ends_at_the_far_limit_and_the_sky_has_no_depth():
    seen = render(scene_of(), 200)
    down = pixel_rays(200)[:, 0, 1]  # (200,)
    ground = down > 1 / FAR
    np.testing.assert_array_equal(seen.surface[:, 7] == GROUND, ground)
    np.testing.assert_allclose(seen.depth[ground, 7], 1 / down[ground])
    assert np.isinf(seen.depth[~ground]).all()


def test_the_nearest_solid_is_seen_in_either_order_and_one_behind_the_camera_is_not():
    near, far = solid("box", [0, 2.0, 1], [0.2] * 3), solid("sphere", [0, 4.0, 1], [1.0] * 3)
    behind = solid("sphere", [0, -3.0, 1], [1.0] * 3)
    one, other = (render(scene_of(*solids), 33) for solids in ((near, far, behind), (behind, far, near)))
    assert one.surface[16, 16] == FIRST_SOLID
    assert other.surface[16, 16] == FIRST_SOLID + 2
    np.testing.assert_array_equal(one.depth, other.depth)
    np.testing.assert_array_equal(one.image, other.image)
    assert FIRST_SOLID not in other.surface


def test_light_falls_as_the_cosine_and_not_behind_a_solid():
    angle = np.radians(30)
    light = np.array([0.0, -np.sin(angle), np.cos(angle)])
    down = Camera(np.array([0.0, 0.0, 5.0]), np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]), focal=1.0)
    ball = solid("sphere", [0, -1.0, 1.0], [0.3] * 3)  # its shadow's middle is at y = -1 + tan 30°
    seen = render(scene_of(ball, camera=down, light=light), 101)
    albedo = np.array([0.2, 0.3, 0.4])
    np.testing.assert_allclose(seen.image[5, 5], np.sqrt(albedo * (0.4 + np.cos(angle))) * 255, atol=0.51)
    row = round(50 + (1 - np.tan(angle)) / 5 * 101)
    np.testing.assert_allclose(seen.image[row, 50], np.sqrt(albedo * 0.4) * 255, atol=0.51)


def test_edges_of_the_image_are_antialiased_and_those_of_the_maps_are_not():
    seen = render(scene_of(solid("box", [0.013, 2.0, 1], [0.4] * 3), ground=plain(0, 0, 0)), 32)
    assert len(np.unique(seen.image[16, :, 0])) > 2
    assert set(np.unique(seen.surface)) == {BACKGROUND, GROUND, FIRST_SOLID}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_texture_mixes_its_two_colours_and_moves_with_its_solid(pattern):
    rng = np.random.default_rng(0)
    texture = Texture(pattern, rng.random((2, 3)), rng.normal(0, 5, (3, 3)), rng.random(3))
    points = rng.normal(size=(3, 500))
    colours = texture.at(points)
    low, high = texture.colours.min(0)[:, None], texture.colours.max(0)[:, None]
    assert ((colours >= low - 1e-12) & (colours <= high + 1e-12)).all()
    thing = dataclasses.replace(solid("box", [1.0, 2, 3], [0.5] * 3, rotation(3)), texture=texture)
    np.testing.assert_allclose(thing.colours(thing.axes @ points + thing.centre[:, None]), colours)
