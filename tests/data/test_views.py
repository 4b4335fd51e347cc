import pytest
import torch
from torch.utils.data import DataLoader

from hf_infomax import data
from hf_infomax.data import recipes
from hf_infomax.data.augmentations import FrequencySeparation
from hf_infomax.models.errors import UsageError

SIZE = 16
NAMES = ("crop_flip", "simclr", "infomin")
# Patches are cut from larger images than they are; an occlusion's blocks have room twice.
GIVEN = {
    "patches": {"image_size": 8, "distance": 5},
    "dim_occluded": {"block": 4},
    "dim_stl_occluded": {"block": 4},
}


@pytest.fixture
def images():
    return torch.randint(0, 256, (24, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def load(name, **options):
    return recipes.load(name, **{"image_size": SIZE, **GIVEN.get(name, {}), **options})


def views_of(loader, recipe, epoch=1):
    """index -> views, as a run over the loader's batches makes them."""
    views, found = recipes.load(recipe, SIZE, seed=3), {}
    for batch in loader:
        made = views(**batch, epoch=epoch)
        for row, index in enumerate(batch["sample_index"].tolist()):
            found[index] = {name: values[row] for name, values in made.items()}
    return found


def same(one, other):
    """To a rounding: torch's vectorised kernels and their scalar tails differ in the last bit."""
    return one.keys() == other.keys() and all(
        torch.allclose(one[index][name], other[index][name], rtol=0, atol=1e-6) for index in one for name in one[index]
    )


def test_the_image_as_it_is(images):
    views = recipes.load("dim", image_size=SIZE)(images)
    assert set(views) == {"pixel_values"}
    assert torch.equal((views["pixel_values"] * 255).round().to(torch.uint8), images)
    assert recipes.load("dim", SIZE)(torch.full_like(images, 255))["pixel_values"].max() == 1.0


def test_floating_point_is_taken_as_it_is(images):
    unit = images.double() / 255
    views = recipes.load("dim", image_size=SIZE)(unit)["pixel_values"]
    assert views.dtype == torch.float32
    assert torch.equal(views, unit.float())
    with pytest.raises(UsageError, match=r"torch\.int64"):
        recipes.load("dim", image_size=SIZE)(images.long())


@pytest.mark.parametrize("name", recipes.RECIPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_batch_is_not_written_into(name, images, dtype):
    images = images if dtype == torch.uint8 else images / 255
    before = images.clone()
    load(name)(images)
    assert torch.equal(images, before)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores: that is the point
@pytest.mark.parametrize("recipe", NAMES)
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_order_and_batch_size_change_nothing(images, recipe, workers):
    dataset = data.DecodedDataset(images)
    plain = views_of(DataLoader(dataset, batch_size=24, collate_fn=data.collate), recipe)
    torch.manual_seed(7)
    other = DataLoader(dataset, batch_size=5, shuffle=True, num_workers=workers, collate_fn=data.collate)
    assert same(plain, views_of(other, recipe))


@pytest.mark.parametrize("recipe", NAMES)
def test_seed_epoch_and_index_change_the_views(images, recipe):
    index = torch.arange(len(images))

    def first_view(seed=0, epoch=0, index=index):
        return recipes.load(recipe, SIZE, seed=seed)(images, sample_index=index, epoch=epoch)["pixel_values"]

    assert torch.equal(first_view(), first_view())
    for other in (first_view(seed=1), first_view(epoch=1), first_view(index=index + 1)):
        assert (other != first_view()).flatten(1).any(1).float().mean() > 0.9


def test_without_an_index_the_views_follow_torch_seed(images):
    views = recipes.load("simclr", SIZE)

    def drawn(seed):
        torch.manual_seed(seed)
        return views(images)["pixel_values"]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_an_index_leaves_torch_generator_alone(images):
    before = torch.get_rng_state()
    recipes.load("infomin", SIZE)(images, sample_index=torch.arange(len(images)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_compiled_as_one_graph(name, images):
    torch.compiler.reset()  # all recipes are one code to it, and it would give up at the ninth
    views, index = load(name), torch.arange(len(images))
    compiled = torch.compile(views, backend="aot_eager", fullgraph=True)
    expected = views(images, sample_index=index)
    for view, values in compiled(images, sample_index=index).items():
        torch.testing.assert_close(values, expected[view], atol=1e-5, rtol=0)


def test_a_clip_is_compiled_as_one_graph(images):
    torch.compiler.reset()
    views = recipes.load("cmc", SIZE, columns={"next_frame": "pixels", "flow": "flow"}, again=["second"])
    batch = {"sample_index": torch.arange(24), "next_frame": images.flip(0), "flow": torch.randn(24, 4, SIZE, SIZE)}
    batch["present"] = {"flow": torch.arange(24) > 3}
    expected = views(images, **batch)
    for view, values in torch.compile(views, backend="aot_eager", fullgraph=True)(images, **batch).items():
        torch.testing.assert_close(values, expected[view], atol=1e-5, rtol=0)


def test_autocast_leaves_pixels_in_single_precision(images):
    views, index = recipes.load("simclr", SIZE), torch.arange(len(images))
    plain = views(images, sample_index=index)["pixel_values"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(views(images, sample_index=index)["pixel_values"], plain)


def test_columns_follow_the_pixels(images):
    rows = torch.arange(SIZE).view(1, 1, SIZE, 1).expand(24, 1, SIZE, SIZE) + 0.5
    across = rows.mT
    batch = {
        "pixel_values": torch.cat([rows, across, torch.zeros_like(rows)], 1) / SIZE,  # an image of its own coordinates
        "depth": rows.clone(),
        "semantic": across.floor().to(torch.uint8),
        "normals": torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(24, 3, SIZE, SIZE),
        "boxes": torch.tensor([[[0.0, 0.0, SIZE, SIZE]]]).expand(24, 1, 4),
        "label": torch.arange(24),
    }
    kinds = {"depth": "values", "semantic": "labels", "normals": "normals", "boxes": "boxes"}
    made = recipes.load("cmc", SIZE, columns=kinds)(**batch, sample_index=torch.arange(24))
    assert set(made) == {"pixel_values", *kinds}
    torch.testing.assert_close(made["depth"] / SIZE, made["pixel_values"][:, :1])
    # A class map is read where the pixel lies: half a pixel from the interpolated coordinate at most.
    apart = (made["semantic"].float() + 0.5 - made["pixel_values"][:, 1:2] * SIZE).abs()
    assert apart.max() <= 1
    mirrored = made["pixel_values"][:, 1, 0, 0] > made["pixel_values"][:, 1, 0, -1]
    assert mirrored.any()
    assert (~mirrored).any()
    assert torch.equal(made["normals"][:, 0, 0, 0] < 0, mirrored)
    torch.testing.assert_close(made["boxes"], batch["boxes"])  # the whole image still covers every crop


def test_normals_may_come_as_an_image(images):
    views, index = recipes.load("dim", SIZE, columns={"normals": "normals"}), torch.arange(24)
    kept = views(images, sample_index=index, normals=images)["normals"]
    assert torch.equal(kept, images / 127.5 - 1)


def test_columns_have_a_dimension_of_crops(images):
    views = recipes.load("simclr", SIZE, columns={"depth": "values"})
    made = views(images, depth=torch.rand(24, 1, SIZE, SIZE))
    assert made["depth"].shape == (24, 2, 1, SIZE, SIZE)


@pytest.mark.parametrize("name", recipes.RECIPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pixels_of_a_column_are_changed_exactly_as_the_images_are(name, dtype, images):
    others = images.flip(0)
    twin = others if dtype == torch.uint8 else others / 255
    views, index = load(name, columns={"next_frame": "pixels"}), torch.arange(24)
    made = views(images, sample_index=index, next_frame=twin, epoch=2)
    plain = load(name)
    for view, values in plain(images, sample_index=index, epoch=2).items():
        torch.testing.assert_close(made[view], values, atol=1e-6, rtol=0)
    expected = plain(twin, sample_index=index, epoch=2)["pixel_values"]
    torch.testing.assert_close(made["next_frame"], expected, atol=1e-6, rtol=0)
    assert made["next_frame"].dtype == torch.float32
    assert set(made) == {*plain.branches, "next_frame"}
    torch.manual_seed(0)
    without_index = views(images, next_frame=images)
    assert torch.equal(without_index["next_frame"], without_index["pixel_values"])


def test_pixels_of_a_column_take_the_sizes_of_the_images(images):
    sizes = torch.tensor([[SIZE, 12], [10, SIZE]]).repeat(12, 1)
    views = recipes.load("simclr", SIZE, columns={"next_frame": "pixels"})
    made = views(images, sample_index=torch.arange(24), image_sizes=sizes, next_frame=images)
    assert torch.equal(made["next_frame"], made["pixel_values"])


@pytest.mark.parametrize("name", ["patches", "frequency"])
def test_columns_follow_both_views_of_a_pair(name, images):
    views = load(name, columns={"depth": "values"})
    depth = images[:, :1].float()
    made = views(images, sample_index=torch.arange(24), depth=depth)
    side = views.image_size
    assert made["pixel_values"].shape == (24, 2, 3, side, side)
    assert made["depth"].shape == (24, 2, 1, side, side)
    if name == "patches":
        torch.testing.assert_close(made["depth"] / 255, made["pixel_values"][:, :, :1])
    else:  # the two halves are of one crop
        low, high = made["pixel_values"][:, :, :1].unbind(1)
        torch.testing.assert_close(made["depth"] / 255, (low + 2 * high - 1).unsqueeze(1).expand(-1, 2, -1, -1, -1))


def test_pairs_of_images_smaller_than_their_tensor(images):
    sizes = torch.tensor([[SIZE, 13], [14, SIZE]]).repeat(12, 1)
    padded = images.clone()
    for image, (height, width) in zip(padded, sizes.tolist(), strict=True):
        image[:, height:], image[:, :, width:] = 0, 0
    for name in ("patches", "frequency"):
        one, other = (
            load(name)(batch, sample_index=torch.arange(24), image_sizes=sizes)["pixel_values"]
            for batch in (padded, images)
        )
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", ["dim", "cmc", "cmc_randaugment", "simclr"])
def test_stacked_flow_is_the_flow_of_each_field(name, dtype, images):
    fields = torch.randn(24, 20, SIZE, SIZE).to(dtype)
    views, index = recipes.load(name, SIZE, columns={"flow": "flow"}), torch.arange(24)
    stack = views(images, sample_index=index, flow=fields)["flow"]
    assert stack.dtype == torch.float32
    for number in range(10):
        one = views(images, sample_index=index, flow=fields[:, 2 * number : 2 * number + 2])["flow"]
        part = stack[..., 2 * number : 2 * number + 2, :, :]
        torch.testing.assert_close(part, one, atol=1e-5, rtol=1e-5)


def test_presence_is_left_alone(images):
    views, present = recipes.load("cmc", SIZE, columns={"flow": "flow"}), {"flow": torch.arange(24) > 3}
    flow = torch.zeros(24, 4, SIZE, SIZE)
    batch = {"pixel_values": images, "sample_index": torch.arange(24), "flow": flow, "present": present}
    made = views(**batch)
    assert "present" not in made
    assert (batch | made)["present"] is present
    assert (made["flow"] == 0).all()


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_another_view_has_random_numbers_of_its_own(name, images):
    index = torch.arange(24)
    made = load(name, again=["second_crop"])(images, sample_index=index)
    for view, values in load(name)(images, sample_index=index).items():
        assert torch.equal(made[view], values)  # the others stay what they were
    assert made["second_crop"].shape == made["pixel_values"].shape
    differ = (made["second_crop"] != made["pixel_values"]).flatten(1).any(1).float().mean()
    assert differ == 0 if name in ("dim", "dim_occluded") else differ > 0.25  # a flip alone differs every other time


def test_columns_follow_the_first_view_only(images):
    views = recipes.load("cmc", SIZE, columns={"next_frame": "pixels"}, again=["second", "third"])
    made = views(images, sample_index=torch.arange(24), next_frame=images)
    assert set(made) == {"pixel_values", "next_frame", "second", "third"}
    assert torch.equal(made["next_frame"], made["pixel_values"])
    assert not torch.equal(made["second"], made["third"])


def test_images_smaller_than_their_tensor(images):
    """The padding of a batch of different sizes is never seen."""
    sizes = torch.tensor([[SIZE, 12], [10, SIZE]]).repeat(12, 1)
    padded = images.clone()
    for image, (height, width) in zip(padded, sizes.tolist(), strict=True):
        image[:, height:], image[:, :, width:] = 0, 0
    noise = torch.where(padded > 0, padded, torch.randint_like(padded, 256))
    for row, (height, width) in enumerate(sizes.tolist()):
        noise[row, :, :height, :width] = padded[row, :, :height, :width]
    views, index = recipes.load("simclr", SIZE), torch.arange(24)
    one, other = (views(batch, sample_index=index, image_sizes=sizes)["pixel_values"] for batch in (padded, noise))
    assert torch.equal(one, other)


def test_mistakes(images):
    with pytest.raises(UsageError, match="16x16 pixels and 20x20 were asked for"):
        recipes.load("dim", image_size=20)(images)
    with pytest.raises(UsageError, match="8 pixels, 9 apart, do not fit into images of 16x16"):
        load("patches", distance=9)(images)
    halves = {"pixel_values": recipes.View(((FrequencySeparation, {"sigma": 1.0}),))}
    with pytest.raises(UsageError, match="16x16 pixels and 20x20 were asked for"):  # of a pair, too
        recipes.load(halves, image_size=20)(images)
    with pytest.raises(UsageError, match="no column 'depth'"):
        recipes.load("cmc", SIZE, columns={"depth": "values"})(images)
    with pytest.raises(UsageError, match="column 'depth' is 8x8 and the images are 16x16"):
        recipes.load("cmc", SIZE, columns={"depth": "values"})(images, depth=torch.rand(24, 1, 8, 8))
    with pytest.raises(UsageError, match="Unknown kind of column 'map'"):
        recipes.load("cmc", SIZE, columns={"depth": "map"})
    with pytest.raises(UsageError, match="a view or a column 'jigsaw_values' already"):
        recipes.load("pirl", SIZE, columns={"jigsaw_values": "pixels"})
    with pytest.raises(UsageError, match="column 'next_frame' is 8x8 and the images are 16x16"):
        recipes.load("cmc", SIZE, columns={"next_frame": "pixels"})(images, next_frame=torch.rand(24, 3, 8, 8))
