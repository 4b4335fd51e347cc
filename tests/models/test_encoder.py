import re

import pytest
import timm
import torch

from hf_infomax.models.configuration_dim import DIMConfig
from hf_infomax.models.encoder import Encoder, flatten_layer
from hf_infomax.models.errors import UsageError, unknown_name
from hf_infomax.models.modeling_dim import DIMForPreTraining, DIMModel

SMALL_SWIN = {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}

#: backbone -> (image size, options, the names of its layers before y)
BACKBONES = {
    "dim_dcgan": (32, {}, ["conv1", "conv2", "conv", "fc"]),
    "dim_alexnet": (64, {"hidden_sizes": [64, 48]}, ["conv1", "conv2", "conv3", "conv4", "conv", "fc"]),
    "resnet18_cifar": (32, {}, ["act1", "layer1", "layer2", "layer3", "conv", "pool"]),
    "resnet18": (64, {}, ["act1", "layer1", "layer2", "layer3", "conv", "pool"]),
    "vit_tiny_patch16_224": (64, {}, [*(f"blocks.{i}" for i in range(11)), "conv", "pool"]),
    "convnext_atto": (64, {}, ["stages.0", "stages.1", "stages.2", "conv", "pool"]),
    "efficientnet_b0": (64, {}, None),
    "mobilenetv3_small_050": (64, {}, None),
    "swin_tiny_patch4_window7_224": (32, SMALL_SWIN, ["layers.0", "layers.1", "layers.2", "conv", "pool"]),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_traced_shapes_are_the_real_ones(name):
    size, options, names = BACKBONES[name]
    encoder = Encoder(name, 3, size, representation_size=16, backbone_kwargs=options).eval()
    with torch.no_grad():
        layers = encoder(torch.rand(2, 3, size, size))
    assert {layer: tuple(value.shape[1:]) for layer, value in layers.items()} == encoder.shapes
    assert list(layers) == list(encoder.shapes)
    assert names is None or list(layers) == [*names, "y"]
    assert list(layers)[-3:] == ["conv", encoder.vector_name, "y"]
    assert [value.dim() for value in layers.values()] == [4] * (len(layers) - 2) + [2, 2]
    assert all(value.isfinite().all() for value in layers.values())


@pytest.mark.parametrize("name", BACKBONES)
def test_the_vector_is_the_one_before_timm_s_classifier(name):
    size, options, _ = BACKBONES[name]
    encoder = Encoder(name, 3, size, representation_size=None, backbone_kwargs=options).eval()
    view = torch.rand(2, 3, size, size)
    with torch.no_grad():
        layers = encoder(view)
        assert list(layers)[-1] in ("fc", "pool")
        torch.testing.assert_close(layers[encoder.vector_name], encoder.backbone(view))


def test_the_vector_is_called_fc_where_hidden_layers_make_it():
    assert Encoder("dim_dcgan", 3, 32).vector_name == "fc"
    assert Encoder("mobilenetv3_small_050", 3, 32).vector_name == "fc"
    assert Encoder("resnet18_cifar", 3, 32).vector_name == "pool"


def test_y_is_linear_in_the_vector():
    encoder = Encoder("dim_dcgan", 2, 32, representation_size=5).eval()
    layers = encoder(torch.rand(3, 2, 32, 32))
    torch.testing.assert_close(layers["y"], layers["fc"] @ encoder.y.weight.T + encoder.y.bias)


#: A convolutional and a transformer family, for which transformers' own initialisation would be another one.
FRESH = [("resnet18", {}), ("resnet18_cifar", {}), ("vit_tiny_patch16_224", {"img_size": 32}), ("convnext_atto", {})]


@pytest.mark.parametrize(("name", "options"), FRESH)
def test_fresh_weights_equal_timm_s(name, options):
    torch.manual_seed(7)
    reference = timm.create_model(name, pretrained=False, num_classes=0, **options).state_dict()
    config = DIMConfig(backbone=name, image_size=32, dot_units=8, prior_units=[8])
    builders = {
        "Encoder": lambda: Encoder(name, 3, 32).backbone,
        "DIMModel": lambda: DIMModel(config).encoders["RGB"].backbone,
        "DIMForPreTraining": lambda: DIMForPreTraining(config).model.encoders["RGB"].backbone,
    }
    for builder in builders.values():
        torch.manual_seed(7)
        weights = builder().state_dict()
        assert weights.keys() == reference.keys()
        assert all(torch.equal(weights[key], reference[key]) for key in reference)


def test_tracing_the_shapes_draws_no_random_number():
    torch.manual_seed(7)
    timm.create_model("resnet18_cifar", num_classes=0)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Encoder("resnet18_cifar", 3, 32)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("resnet18_cifr", "resnet18_cifar"), ("dim_dcgam", "dim_dcgan"), ("vit_tiny_patch16_24", "vit_tiny_patch16_224")],
)
def test_an_unknown_backbone_is_met_with_a_suggestion(typo, meant):
    with pytest.raises(UsageError, match=rf"^Unknown backbone '{typo}': did you mean .*\b{meant}\b.*\?$"):
        Encoder(typo, 3, 32)


def test_an_unlike_backbone_is_met_without_one():
    with pytest.raises(UsageError, match=r"^Unknown backbone '##': \d+ names are known\.$"):
        Encoder("##", 3, 32)


def test_options_that_the_backbone_lacks():
    with pytest.raises(UsageError, match=r"'dim_dcgan'.*no_such_option"):
        Encoder("dim_dcgan", 3, 32, backbone_kwargs={"no_such_option": 1})


def test_few_names_are_all_listed():
    assert (
        str(unknown_name("bound", "infonec", ("infonce", "dv")))
        == "Unknown bound 'infonec': choose one of infonce, dv."
    )


def test_an_unknown_layer_is_met_with_the_names():
    model = DIMModel(DIMConfig()).eval()
    with pytest.raises(UsageError, match=re.escape("Unknown layer 'fcc': choose one of conv1, conv2, conv, fc, y.")):
        model.features(torch.rand(1, 3, 32, 32), layer="fcc")


def test_flatten_layer_flattens_small_maps_and_averages_large_ones():
    small, large = torch.randn(2, 256, 4, 4), torch.randn(2, 257, 4, 4)
    assert torch.equal(flatten_layer(small), small.reshape(2, 4096))
    torch.testing.assert_close(flatten_layer(large), large.mean((2, 3)))
    assert torch.equal(flatten_layer(large, "flatten"), large.reshape(2, -1))
    torch.testing.assert_close(flatten_layer(small, "avg"), small.mean((2, 3)))


def test_flatten_layer_averages_over_a_grid():
    layer = torch.randn(2, 3, 6, 6)
    pooled = flatten_layer(layer, 2)
    assert pooled.shape == (2, 12)
    torch.testing.assert_close(pooled.view(2, 3, 2, 2)[:, :, 1, 0], layer[:, :, 3:, :3].mean((2, 3)))
    torch.testing.assert_close(flatten_layer(layer, 1), flatten_layer(layer, "avg"))


def test_flatten_layer_leaves_vectors_and_gives_float32():
    vector = torch.randn(2, 7).bfloat16()
    for pool in (None, "flatten", "avg", 3):
        assert torch.equal(flatten_layer(vector, pool), vector.float())
    assert flatten_layer(torch.ones(2, 3, 4, 4).bfloat16()).dtype == torch.float32


def test_an_unknown_pool():
    with pytest.raises(UsageError, match=r"^Unknown pool 'max': choose "):
        flatten_layer(torch.zeros(1, 2, 3, 3), "max")
