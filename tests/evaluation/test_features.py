import pytest
import torch

from hf_infomax.evaluation import extract_features, pixel_features
from hf_infomax.models.errors import UsageError


def test_every_layer_in_one_pass_over_the_images(model, pixels):
    features = extract_features(model, pixels, batch_size=4, progress=False)
    assert [count for count, _, _ in model.seen] == [4, 4, 2]
    assert {name: tuple(values.shape) for name, values in features.items()} == {
        "conv": (10, 256),
        "wide": (10, 160),  # 160 * 8 * 8 = 10,240 values: more than 4,096, so averaged over space
        "y": (10, 5),
    }
    assert all(values.dtype == torch.float32 and values.device.type == "cpu" for values in features.values())


def test_features_are_those_of_the_model_in_evaluation_mode(model, pixels):
    features = extract_features(model, pixels, ["conv"], batch_size=3, progress=False)
    with torch.no_grad():
        expected = model.eval().layers(pixels.float() / 255)["conv"].flatten(1)
    torch.testing.assert_close(features["conv"], expected)
    assert list(features) == ["conv"]


def test_images_arrive_in_unit_range(model, pixels):
    extract_features(model, torch.full_like(pixels, 255), progress=False)
    extract_features(model, torch.ones(2, 3, 16, 16), progress=False)
    assert [highest for _, _, highest in model.seen] == [1.0, 1.0]


def test_each_module_gets_its_own_mode_back(model, pixels):
    model.train()
    model.norm.eval()  # frozen
    extract_features(model, pixels, progress=False)
    assert not model.seen[0][1]
    assert model.training
    assert not model.norm.training


def test_the_mode_comes_back_after_an_error(model, pixels):
    model.train()
    model.layers = None
    with pytest.raises(TypeError):
        extract_features(model, pixels, progress=False)
    assert model.training


def test_features_may_enter_a_later_graph(model, pixels):
    features = extract_features(model, pixels, ["y"], progress=False)["y"]
    probe = torch.nn.Linear(5, 2)
    probe(features).sum().backward()
    assert probe.weight.grad is not None


def test_autocast_stays_close_and_returns_float32(model, pixels):
    exact = extract_features(model, pixels, ["conv"], progress=False)["conv"]
    rounded = extract_features(model, pixels, ["conv"], precision="bf16", progress=False)["conv"]
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=0.03, rtol=0.03)


def test_pool_is_passed_on(model, pixels):
    assert extract_features(model, pixels, ["conv"], progress=False, pool="avg")["conv"].shape == (10, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["convv"]}, "'convv': choose one of conv, wide, y"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"pixels": torch.zeros(2, 1, 8, 8)}, r"\(2, 1, 8, 8\)"),
        ({"pixels": torch.zeros(2, 3, 8, 8, dtype=torch.int64)}, "torch.int64"),
        ({"pixels": torch.zeros(0, 3, 8, 8)}, "no images"),
    ],
)
def test_mistakes_are_named(model, pixels, options, message):
    with pytest.raises(UsageError, match=message):
        extract_features(model, **({"pixels": pixels, "progress": False} | options))


def test_pixels_are_scaled_and_flattened(pixels):
    features = pixel_features(pixels)["pixels"]
    assert features.shape == (10, 3 * 16 * 16)
    torch.testing.assert_close(features[1], pixels[1].flatten() / 255)
