import importlib.util
import warnings

import pytest
import timm
import torch
from timm.models.resnet import ResNet
from torch import nn

from hf_infomax.models import backbones
from hf_infomax.models.backbones import ConvNet

CONVNETS = ("dim_dcgan", "dcgan_pooled", "dim_alexnet", "cmc_alexnet", "cmc_alexnet_stl10", "cmc_nyu")
NAMES = (*CONVNETS, "resnet10_cifar", "resnet18_cifar", "resnet34_cifar", "resnet50_cifar")

# The hidden layers of the AlexNets hold up to 55 million weights as published; their maps are what is looked at here.
LIGHT = {name: {"hidden_sizes": (48, 40)} for name in ("dim_alexnet", "cmc_alexnet", "cmc_alexnet_stl10")}


def create(name, **kwargs):
    return timm.create_model(name, pretrained=False, **LIGHT.get(name, {}), **kwargs).eval()


def images(model):
    return torch.rand(2, *model.pretrained_cfg["input_size"])


@pytest.mark.parametrize("name", NAMES)
def test_timm_creates_a_classifier_that_trains(name):
    assert timm.is_model(name)
    model = create(name, num_classes=10).train()
    logits = model(images(model))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_they_keep_timm_s_conventions(name):
    model = create(name, num_classes=7)
    view = images(model)
    with torch.no_grad():
        final, maps = model.forward_intermediates(view)
        assert torch.equal(final, maps[-1])
        assert torch.equal(final, model.forward_features(view))
        for info, layer in zip(model.feature_info, maps, strict=True):
            assert layer.shape[1] == info["num_chs"]
            assert abs(view.shape[-1] / info["reduction"] - layer.shape[-1]) <= 1  # what is unpadded drops a border
            assert isinstance(model.get_submodule(info["module"]), nn.Module)
        hidden = model.forward_head(final, pre_logits=True)
        assert hidden.shape == (2, model.head_hidden_size)
        assert torch.equal(model.get_classifier()(hidden), model(view))
        model.reset_classifier(0)
        assert torch.equal(model(view), hidden)
        model.reset_classifier(3)
        assert model(view).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "last_map", "vector"),
    [
        ("dim_dcgan", (256, 4, 4), 1024),
        ("dcgan_pooled", (256, 4, 4), 1024),
        ("resnet10_cifar", (512, 4, 4), 512),
        ("resnet18_cifar", (512, 4, 4), 512),
        ("resnet34_cifar", (512, 4, 4), 512),
        ("resnet50_cifar", (2048, 4, 4), 2048),
    ],
)
def test_shapes_are_those_of_the_table(name, last_map, vector):
    model = create(name)
    final = model.forward_features(images(model))
    assert final.shape[1:] == last_map
    assert model.forward_head(final, pre_logits=True).shape[1:] == (vector,)


def test_the_published_alexnet():
    with torch.device("meta"):
        model = timm.create_model("dim_alexnet", pretrained=False).eval()
        final, maps = model.forward_intermediates(torch.empty(1, 3, 64, 64))
        assert model.forward_head(final, pre_logits=True).shape == (1, 4096)
    shapes = [tuple(layer.shape[1:]) for layer in maps]
    assert shapes == [(96, 31, 31), (192, 15, 15), (384, 15, 15), (384, 15, 15), (192, 7, 7)]
    linear = [module for module in model.hidden if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(9408, 4096), (4096, 4096)]


@pytest.mark.parametrize(
    ("name", "maps", "hidden"),
    [
        (
            "cmc_alexnet",  # Table 9, the stages with their pooling
            [(48, 27, 27), (128, 13, 13), (192, 13, 13), (192, 13, 13), (128, 6, 6)],
            [(4608, 2048), (2048, 2048)],
        ),
        (
            "cmc_alexnet_stl10",  # Table 8
            [(48, 31, 31), (96, 15, 15), (192, 15, 15), (192, 15, 15), (96, 7, 7)],
            [(4704, 2048), (2048, 2048)],
        ),
        (
            "cmc_nyu",  # Table 10
            [(64, 32, 32), (128, 16, 16), (256, 8, 8), (256, 8, 8), (512, 4, 4)],
            [(8192, 512)],
        ),
    ],
)
def test_the_published_encoders_of_a_view(name, maps, hidden):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, in_chans=2).eval()
        found = model.forward_intermediates(torch.empty(1, 2, *model.pretrained_cfg["input_size"][1:]))[1]
    assert [tuple(layer.shape[1:]) for layer in found] == maps
    linear = [module for module in model.hidden if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == hidden


@pytest.mark.parametrize(("name", "millions", "vector"), [("resnet50_x05", 6, 1024), ("resnet50_x2", 94, 4096)])
def test_the_published_widths(name, millions, vector):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0).eval()
        maps = model.forward_intermediates(torch.empty(1, 3, 64, 64))[1]
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.05)  # Table 2 of InfoMin's supplement: two make 12 and 188
    assert model.head_hidden_size == vector
    assert [layer.shape[1] for layer in maps] == [info["num_chs"] for info in model.feature_info]


def test_a_width_of_one_is_timm_s_own_resnet():
    scaled = timm.create_model("resnet50_x2", width=1.0, pretrained=False, num_classes=3)
    own = timm.create_model("resnet50", pretrained=False, num_classes=3)
    assert {k: v.shape for k, v in scaled.state_dict().items()} == {k: v.shape for k, v in own.state_dict().items()}
    for name in ("conv1", "layer1.0.conv1", "layer1.0.downsample.0"):
        ours, theirs = (model.get_submodule(name).weight.std().item() for model in (scaled, own))
        assert ours == pytest.approx(theirs, rel=0.1)
    own.load_state_dict(scaled.state_dict())
    view = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(scaled.eval()(view), own.eval()(view))


def test_the_published_dcgan():
    model = create("dim_dcgan")
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == [(64, 4, 2), (128, 4, 2), (256, 4, 2)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [64, 128, 256, 1024]
    assert all(module.bias is None for module in convs)


@pytest.mark.parametrize("size", [28, 33, 48, 64])
@pytest.mark.parametrize("name", ["dim_dcgan", "dim_alexnet"])
def test_a_convnet_follows_the_image_size(name, size):
    model = create(name, img_size=size, in_chans=2, num_classes=4)
    assert model(torch.rand(2, 2, size, size)).shape == (2, 4)


def test_a_convnet_is_free_in_its_sizes():
    model = ConvNet(num_classes=5, img_size=(16, 16), channels=(4, 6), hidden_sizes=()).eval()
    view = torch.rand(2, 3, 16, 16)
    assert torch.equal(
        model.forward_head(model.forward_features(view), pre_logits=True), model.forward_features(view).flatten(1)
    )
    assert model(view).shape == (2, 5)


def test_a_convnet_as_a_timm_feature_extractor():
    model = timm.create_model("dim_dcgan", pretrained=False, features_only=True, out_indices=(0, 1, 2))
    maps = model(torch.rand(2, 3, 32, 32))
    assert [tuple(layer.shape[1:]) for layer in maps] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    assert model.feature_info.reduction() == [2, 4, 8]


def test_resnet18_cifar_as_a_timm_feature_extractor():
    model = timm.create_model("resnet18_cifar", pretrained=False, features_only=True)
    view = torch.rand(2, 3, 32, 32)
    shapes = [tuple(layer.shape[1:]) for layer in model(view)]
    assert shapes == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert model.feature_info.channels() == [shape[0] for shape in shapes]
    assert [32 // reduction for reduction in model.feature_info.reduction()] == [shape[1] for shape in shapes]


def test_a_cifar_resnet_differs_from_timm_s_by_its_stem_alone():
    cifar, imagenet = create("resnet18_cifar", num_classes=10), timm.create_model("resnet18", num_classes=10)
    shapes, reference = ({k: v.shape for k, v in m.state_dict().items()} for m in (cifar, imagenet))
    assert isinstance(cifar, ResNet)
    assert {k for k in reference if shapes[k] != reference[k]} == {"conv1.weight"}
    assert set(shapes) == set(reference)
    assert cifar.conv1.weight.shape == (64, 3, 3, 3)
    assert cifar.conv1.stride == (1, 1)
    fan_out = 64 * 9
    assert cifar.conv1.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_the_file_may_be_executed_twice_without_a_warning():
    spec = importlib.util.spec_from_file_location("backbones_again", backbones.__file__)
    before = timm.model_entrypoint("dim_dcgan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert timm.model_entrypoint("dim_dcgan") is before


def test_a_grid_of_means_takes_images_of_any_size():
    whole, plain = create("dcgan_pooled", grid=4), create("dim_dcgan")
    whole.load_state_dict(behind_the_pooling(plain.state_dict()))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert whole(images).equal(plain(images))  # a map of 4 x 4 is its own grid
        mean = create("dcgan_pooled")
        for side in (9, 16, 40):
            assert whole(torch.rand(2, 3, side, side)).shape == mean(torch.rand(2, 3, side, side)).shape == (2, 1000)


def behind_the_pooling(weights):
    """Weights whose hidden layers are one place further."""
    moved = {}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        place, _, leaf = rest.partition(".")
        moved[f"hidden.{int(place) + 1}.{leaf}" if part == "hidden" else name] = value
    return moved
