import torch

from hf_infomax import data
from hf_infomax.downstream import UNet, compute_maps


def test_maps_computed_once_are_those_of_every_epoch(model):
    pixels = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    images, views = data.DecodedDataset(pixels), data.recipes.load("dim", 32)
    unet = UNet(model, "L", num_classes=3)
    maps = compute_maps(unet, images, views, batch_size=2)
    assert list(maps) == ["map0", "map1", "map2"]
    for found, one in zip(maps.values(), unet.maps(**views(pixels)), strict=True):
        torch.testing.assert_close(found, one, rtol=0, atol=1e-5)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert not found.requires_grad


def test_too_many_maps_are_none(model):
    images = data.DecodedDataset(torch.zeros(5, 3, 32, 32, dtype=torch.uint8))
    unet, views = UNet(model, "ab", num_classes=3), data.recipes.load("dim", 32)
    size = 4 * 5 * (4 * 16 * 16 + 6 * 8 * 8 + 8 * 4 * 4)
    assert compute_maps(unet, images, views, most_bytes=size - 1) is None
    assert compute_maps(unet, images, views, most_bytes=size) is not None
