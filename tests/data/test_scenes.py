import itertools
import time

import numpy as np
import pytest

from hf_infomax.data import decode_images, load_dataset
from hf_infomax.data.rendering import SHAPES
from hf_infomax.data.scenes import GAP, LEAST_PIXELS, SEMANTIC, Scenes, annotated, draw_scene, visible_objects
from hf_infomax.models.errors import UsageError

NAME = "hf_infomax/scenes"
MAPS = ("image", "depth", "normals", "semantic", "instances")


def maps(dataset, name):
    return np.stack([np.asarray(image) for image in dataset[name]])


@pytest.fixture
def clips():
    return load_dataset(NAME, "train", config="clips")


@pytest.fixture(scope="module")
def drawn():
    return [draw_scene(np.random.default_rng((7, number)))[0] for number in range(60)]


def test_published_sizes_and_columns(tmp_path):
    sizes = {"default": (64, 2_000, 500, 1), "large": (128, 2_000, 500, 1), "clips": (64, 120, 20, 16)}
    assert list(Scenes.builder_configs) == list(sizes)
    for name, (_, train, test, frames) in sizes.items():
        builder = Scenes(cache_dir=str(tmp_path), config_name=name)
        config = builder.config
        assert (config.image_size, config.train_scenes, config.test_scenes, config.frames) == sizes[name]
        scenes = {
            split.name: sum(n for _, n in split.gen_kwargs["blocks"]) for split in builder._split_generators(None)
        }
        assert scenes == {"train": train, "test": test}
        place = ["scene"] if frames == 1 else ["sequence", "frame"]
        assert list(builder.info.features) == [*MAPS, "objects", "focal", *place]
        assert builder.info.features["objects"]["category"].feature.names == list(SHAPES)
        assert ", ".join(SEMANTIC) in builder.info.description


def test_files_have_the_documented_modes_and_sizes(scenes):
    modes = {"image": "RGB", "depth": "I;16", "normals": "RGB", "semantic": "L", "instances": "L"}
    for name, mode in modes.items():
        assert scenes[0][name].format == "PNG"
        assert (scenes[0][name].mode, scenes[0][name].size) == (mode, (64, 64))
    assert scenes["scene"][:] == list(range(30))


def test_every_map_says_the_same_of_where_there_is_what(scenes):
    semantic, instances, depth = (maps(scenes, name) for name in ("semantic", "instances", "depth"))
    normals = maps(scenes, "normals") / 255 * 2 - 1
    np.testing.assert_array_equal(semantic >= 2, instances > 0)
    np.testing.assert_array_equal(semantic == 0, depth == 0)
    length = np.linalg.norm(normals, axis=-1)
    assert length[depth == 0].max(initial=0) < 0.1
    np.testing.assert_allclose(length[depth > 0], 1, atol=0.01)
    assert set(np.unique(semantic)) == set(range(len(SEMANTIC)))
    for row in range(len(scenes)):
        for number in np.unique(instances[row])[1:]:
            assert len(np.unique(semantic[row][instances[row] == number])) == 1


def test_boxes_are_tight_and_areas_count_the_mask(scenes):
    semantic, instances = maps(scenes, "semantic"), maps(scenes, "instances")
    for row, objects in enumerate(scenes["objects"]):
        counts = dict(zip(*np.unique(instances[row], return_counts=True), strict=True))
        assert objects["id"] == [number for number in counts if number and counts[number] >= LEAST_PIXELS]
        for number, (x, y, width, height), category, area in zip(
            *(objects[key] for key in ("id", "bbox", "category", "area")), strict=True
        ):
            mask = instances[row] == number
            inside = np.zeros_like(mask)
            inside[int(y) : int(y + height), int(x) : int(x + width)] = True
            assert (mask <= inside).all()
            for edge in (mask[int(y)], mask[int(y + height) - 1], mask[:, int(x)], mask[:, int(x + width) - 1]):
                assert edge.any()
            assert mask.sum() == area
            assert (semantic[row][mask] == category + 2).all()


def test_a_solid_with_few_visible_pixels_is_no_object():
    instances = np.zeros((20, 20), dtype=np.uint8)
    instances[2, 2 : 2 + LEAST_PIXELS - 1] = 1
    instances[5:7, 4:10] = 2
    assert visible_objects(instances, ["box", "cone", "sphere"]) == {
        "id": [2],
        "bbox": [[4, 5, 6, 2]],
        "category": ["cone"],
        "area": [12],
    }


def test_unprojected_ground_lies_on_a_plane_with_the_ground_s_normal(scenes):
    semantic, depth, normals = (maps(scenes, name) for name in ("semantic", "depth", "normals"))
    for row in range(10):
        rows, columns = np.nonzero((semantic[row] == 1) & (depth[row] < 12_000))
        z = depth[row][rows, columns] / 1_000
        focal = scenes[row]["focal"]
        points = np.stack([(columns + 0.5 - 32) * z / focal, (rows + 0.5 - 32) * z / focal, z], axis=-1)
        points -= points.mean(axis=0)
        normal = np.linalg.svd(points, full_matrices=False)[2][-1]
        assert abs(points @ normal).max() < 1e-3  # metres; depth is rounded to a millimetre
        encoded = (normals[row][rows, columns] / 255 * 2 - 1) * [1, 1, -1]
        assert abs(encoded @ normal).min() > 0.99
        assert encoded[:, 1].max() < 0  # upwards: y points down


def test_solids_rest_on_the_ground_and_stand_apart(drawn):
    down = np.array([[0.0], [0.0], [-1.0]])
    for scene in drawn:
        for number, solid in enumerate(scene.solids):
            assert solid.centre[2] == pytest.approx(solid.support(down)[0])
            for other in scene.solids[:number]:
                # Vertical planes between two centres: as near to each other as their supports along them allow.
                angles = np.linspace(0, 2 * np.pi, 90)
                ways = np.stack([np.cos(angles), np.sin(angles), 0 * angles])
                apart = ways.T @ (other.centre - solid.centre) - solid.support(ways) - other.support(-ways)
                assert apart.max() > GAP * 0.9


def test_classes_vary_and_colours_do_not_tell_them(drawn):
    solids = [solid for scene in drawn for solid in scene.solids]
    shapes = np.array([solid.shape for solid in solids])
    colours = np.array([solid.texture.colours[0] for solid in solids])
    for shape in SHAPES:
        share = (shapes == shape).mean()
        assert 0.15 < share < 0.35
        assert abs(colours[shapes == shape].mean(axis=0) - colours.mean(axis=0)).max() < 0.15
    assert len({solid.texture.pattern for solid in solids}) == 4
    lying = [solid for solid in solids if solid.shape in ("cone", "cylinder") and abs(solid.axes[2, 2]) < 0.9]
    assert 0.1 < len(lying) / np.isin(shapes, ["cone", "cylinder"]).sum() < 0.6


def test_views_are_not_degenerate(scenes):
    semantic, image = maps(scenes, "semantic"), maps(scenes, "image").reshape(len(scenes), -1) / 255
    assert ((semantic >= 2).mean(axis=(1, 2)) > 0.05).all()
    assert ((semantic == 1).mean(axis=(1, 2)) > 0.15).all()
    assert 0.2 < (semantic == 0).any(axis=(1, 2)).mean() < 1
    assert min(len(objects["id"]) for objects in scenes["objects"]) >= 2
    assert image.std(axis=1).min() > 0.04
    assert 0.15 < image.mean(axis=1).min() < image.mean(axis=1).max() < 0.9


def test_two_builds_are_the_same_to_the_byte_and_another_seed_is_not(tmp_path, scenes):
    again = Scenes(cache_dir=str(tmp_path), train_scenes=12, test_scenes=1)
    again.download_and_prepare()
    assert again.as_dataset("train").data.table.equals(scenes.select(range(12)).flatten_indices().data.table)
    other = Scenes(cache_dir=str(tmp_path), train_scenes=1, test_scenes=1, seed=1)
    other.download_and_prepare()
    assert other.as_dataset("train")[0]["focal"] != scenes[0]["focal"]


def test_splits_and_scenes_differ(scenes):
    test = load_dataset(NAME, "test")
    focal = [*scenes["focal"], *test["focal"]]
    assert len(set(focal)) == len(focal) == 40


def test_large_scenes_are_the_same_scenes(scenes):
    large = load_dataset(NAME, "train", config="large")
    assert large[0]["image"].size == (128, 128)
    assert large[0]["focal"] == 2 * scenes[0]["focal"]
    agreement = maps(large, "semantic")[:, ::2, ::2] == maps(scenes.select(range(3)), "semantic")
    assert agreement.mean() > 0.95


def test_clips_are_rows_in_temporal_order_that_move_little(clips):
    assert clips["sequence"][:] == [0] * 6 + [1] * 6 + [2] * 6
    assert clips["frame"][:] == list(range(6)) * 3
    images = maps(clips, "image").reshape(3, 6, -1) / 255
    within = abs(np.diff(images, axis=1)).mean(axis=-1)  # (3, 5)
    between = abs(images[1:] - images[:-1]).mean(axis=-1)  # (2, 6)
    assert within.min() > 0.001
    assert within.max() < between.min()
    first = np.array([set(np.unique(m)) for m in maps(clips, "instances")]).reshape(3, 6)
    assert all(len(first[n, 0] & first[n, 5]) >= 3 for n in range(3))  # the same numbers go on


def test_moving_solids_keep_their_size_and_their_numbers():
    for number in range(5):
        moments = draw_scene(np.random.default_rng(number), frames=6)
        for one, other in itertools.pairwise(moments):
            assert one.camera.focal == other.camera.focal
            for before, after in zip(one.solids, other.solids, strict=True):
                assert before.shape == after.shape
                assert (before.size == after.size).all()
                assert np.hypot(*(after.centre - before.centre)[:2]) < 0.25
        assert any((a.centre != b.centre).any() for a, b in zip(moments[0].solids, moments[1].solids, strict=True))


def test_it_loads_by_name_and_streams(scenes):
    assert load_dataset(NAME, "train[:20]").num_rows == 20
    row = next(iter(load_dataset(NAME, "train", streaming=True)))
    assert row["objects"] == scenes[0]["objects"]
    np.testing.assert_array_equal(np.asarray(row["depth"]), np.asarray(scenes[0]["depth"]))


def test_columns_decode_as_their_kinds(scenes):
    few = scenes.select(range(4))
    labels = decode_images(few, "semantic", 64, kind="labels", progress=False).pixels
    depth = decode_images(few, "depth", 64, kind="values", progress=False).pixels
    normals = decode_images(few, "normals", 64, kind="pixels", progress=False).pixels
    np.testing.assert_array_equal(labels[:, 0], maps(few, "semantic"))
    np.testing.assert_array_equal(depth[:, 0], maps(few, "depth"))
    np.testing.assert_array_equal(normals, maps(few, "normals").transpose(0, 3, 1, 2))


def test_mistakes_are_one_sentence():
    with pytest.raises(UsageError, match=r"clips"):
        load_dataset(NAME, "train", config="videos")
    with pytest.raises(UsageError, match=r"image_size of the scenes is 8: give a number from 16 on"):
        Scenes(image_size=8)
    with pytest.raises(UsageError, match=r"frames of the scenes is 0"):
        Scenes(frames=0)


def test_a_scene_is_quick_to_draw():
    start = time.perf_counter()
    for number in range(20):
        annotated(draw_scene(np.random.default_rng(number))[0], 64)
    assert time.perf_counter() - start < 3  # 20 a third of a second on an idle core
