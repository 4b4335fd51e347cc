import json

import pytest
import torch
from torch.nn import functional as F

from hf_infomax import CMCConfig, CMCForPreTraining, CMCModel, DIMConfig, DIMForPreTraining, UsageError
from hf_infomax.downstream import MapDecoder, UNet
from hf_infomax.downstream.segmentation import finest_first

FIVE = {"channels": [4, 4, 6, 6, 8], "hidden_sizes": [8]}
THREE = {"channels": [4, 6, 8], "hidden_sizes": [8]}


@pytest.mark.parametrize(
    ("backbone", "size", "options", "sides", "blanks"),
    [
        ("dim_dcgan", 32, {"backbone_kwargs": THREE}, [16, 8, 4], [0, 0, 0]),
        ("dim_dcgan", 64, {"backbone_kwargs": THREE}, [32, 16, 8], [0, 0, 0]),
        ("cmc_nyu", 128, {"backbone_kwargs": FIVE}, [32, 16, 8, 4], [1, 0, 0, 0]),
        ("cmc_alexnet_stl10", 64, {"backbone_kwargs": FIVE}, [31, 15, 7], [0, 0, 0]),
        ("cmc_alexnet", 224, {"backbone_kwargs": FIVE}, [27, 13, 6], [2, 0, 0]),
        ("resnet18_cifar", 32, {}, [32, 16, 8, 4], [0, 0, 0, 0]),
        ("resnet18", 64, {}, [32, 16, 8, 4, 2], [0, 0, 0, 0, 0]),
        ("vit_tiny_patch16_224", 48, {"backbone_kwargs": {"depth": 2}}, [3], [3]),
        ("dim_dcgan", 48, {"backbone_kwargs": THREE, "patch_size": 16}, [5], [2]),
    ],
)
def test_logits_have_the_inputs_size_whatever_the_encoder(backbone, size, options, sides, blanks):
    unet = UNet(CMCModel(CMCConfig(backbone=backbone, image_size=size, **options)), "ab", num_classes=5)
    images = torch.rand(2, 3, size, size)
    assert [layer.shape[-1] for layer in unet.maps(images)] == sides
    assert unet.decoder.blanks == blanks
    assert unet(images).shape == (2, 5, size, size)


def test_images_may_be_larger_and_oblong_where_the_encoder_takes_them():
    unet = UNet(DIMForPreTraining(DIMConfig(backbone="resnet18_cifar")), "RGB", num_classes=3)
    assert unet(torch.rand(1, 3, 50, 37)).shape == (1, 3, 50, 37)


def test_of_each_resolution_the_last_map_counts():
    maps = [torch.full((1, 1, side, side), value) for value, side in ((0.0, 8), (1.0, 8), (2.0, 4), (3.0, 2))]
    assert [layer.flatten()[0].item() for layer in finest_first(maps)] == [1, 2, 3]


def test_every_map_reaches_the_logits():
    maps = [torch.rand(2, 3, side, side, requires_grad=True) for side in (7, 3)]
    MapDecoder([(3, 7, 7), (3, 3, 3)], image_size=32, num_classes=2)(maps, (32, 32)).sum().backward()
    assert all(layer.grad.abs().sum() > 0 for layer in maps)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_changes_the_decoder_and_of_an_encoder_only_one_that_is_not_frozen(model, frozen):
    unet = UNet(model, "L", num_classes=4, frozen=frozen).train()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    optimizer = torch.optim.Adam(unet.parameters())
    F.cross_entropy(unet(torch.rand(4, 3, 32, 32)), torch.randint(4, (4, 32, 32))).backward()
    optimizer.step()
    changed = {name for name, value in unet.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("decoder") for name in changed)
    in_encoder = {name for name in changed if name.startswith("encoder")}
    gradients = [parameter.grad is not None for parameter in unet.encoder.parameters()]
    modes = {module.training for module in unet.encoder.modules()}
    if frozen:
        assert not in_encoder
        assert not any(gradients)
        assert modes == {False}
    else:
        assert any("running_mean" in name for name in in_encoder)  # batch norm's statistics as well
        assert any(gradients)
        assert modes == {True}
    assert {module.training for module in unet.decoder.modules()} == {True}


def test_a_column_is_read_by_its_name_and_no_image_is_needed(model):
    unet = UNet(model, "depth", num_classes=3).eval()
    depth = 8000 * torch.rand(2, 1, 32, 32)
    assert unet(depth=depth).shape == (2, 3, 32, 32)
    assert torch.equal(unet(torch.rand(2, 3, 32, 32), depth=depth), unet(depth=depth))
    with pytest.raises(UsageError, match="'depth'"):
        unet(torch.rand(2, 3, 32, 32))


def test_only_the_view_is_looked_at(model):
    unet = UNet(model, "L", num_classes=3).eval()
    assert not any(key.startswith("encoder.ab") for key in unet.state_dict())
    grey = torch.rand(2, 1, 32, 32).expand(-1, 3, -1, -1)
    layers = model.eval().encode(grey, ["L"])["L"]
    torch.testing.assert_close(unet.maps(grey), [layers[name] for name in ("conv1", "conv2", "conv")])


def test_a_segmenter_that_is_loaded_again_predicts_the_same(model, tmp_path):
    unet = UNet(model, "ab", num_classes=5).eval()
    unet.save_pretrained(tmp_path / "unet")
    again = UNet.from_pretrained(tmp_path / "unet")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(images), unet(images), rtol=0, atol=1e-5)
    assert (again.view, again.num_classes, again.frozen, again.training) == ("ab", 5, True, False)
    assert json.loads((tmp_path / "unet" / "segmenter.json").read_text())["encoder"]["model_type"] == "infomax_cmc"


def test_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"Unknown view 'l'.*L, ab"):
        UNet(CMCForPreTraining(CMCConfig(backbone_kwargs=THREE)), "l", num_classes=2)
    with pytest.raises(UsageError, match="holds no segmenter"):
        UNet.from_pretrained(tmp_path)
