"""The maps of a frozen encoder, computed once: what a decoder is trained on when nothing about the images changes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from hf_infomax import data

from .segmentation import UNet


def compute_maps(
    unet: UNet,
    images: data.DecodedDataset,
    views: data.Views,
    batch_size: int = 256,
    most_bytes: float | None = None,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> dict[str, Tensor] | None:
    """What `UNet.maps` gives of all images, on the CPU, in the type that it is computed in.

    An epoch on them skips the encoder. They take room: those of DIM's CIFAR encoder at 64x64 are 0.22 MiB an image in bfloat16,
    39 times its uint8 pixels.

    Args:
        unet: with a frozen encoder.
        images: N images and the columns that the view needs.
        views: the recipe of the images as they are.
        batch_size: images in one pass.
        most_bytes: None is returned where the maps would take more.
        autocast: what the encoder is computed under.

    Returns:
        {"map0": (N, C, h, w), ...}, the finest first, channels last in memory.
    """
    device = next(unet.parameters()).device
    maps: list[Tensor] = []
    unet.eval()
    for rows in torch.arange(len(images)).split(batch_size):
        batch = {name: values.to(device) for name, values in images.__getitems__(rows.tolist()).items()}
        with autocast(), torch.no_grad():
            found = unet.maps(**views(**batch))
        if not maps:
            if most_bytes is not None and sum(layer[0].nbytes for layer in found) * len(images) > most_bytes:
                return None
            maps = [_room(len(images), layer) for layer in found]
        for store, layer in zip(maps, found, strict=True):
            store[rows] = layer.cpu()
    return {f"map{place}": store for place, store in enumerate(maps)}


def _room(images: int, layer: Tensor) -> Tensor:
    shape = (images, *layer.shape[1:])
    return torch.empty(shape, dtype=layer.dtype, memory_format=torch.channels_last)
