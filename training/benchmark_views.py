"""Speed of the views: batched, against torchvision image by image in Pillow (v1) and on tensors (v2). A part of benchmark.py."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import functional as TF
from torchvision.transforms import v2

from hf_infomax import data
from hf_infomax.data import recipes
from stopwatch import interleaved

# side of the views, side of the images, images of a batch for the package's views and for the references
SIZES = ((32, 32, 256, 256), (224, 256, 32, 8))


def images_of(side: int, count: int, dataset: str = "hf_infomax/colour_digits") -> Tensor:
    """Images of a dataset, enlarged where need be: (count, 3, side, side) uint8."""
    split = data.load_dataset(dataset, f"train[:{count}]")
    return data.decode_images(split, data.find_image_column(split), side, progress=False, cache=False).pixels


def torchvision_simclr(transforms: object, side: int, blur: bool) -> Callable[[object], Tensor]:
    """SimCLR's transform as its users write it, of either version."""
    t = transforms
    steps = [
        t.RandomResizedCrop(side, scale=(0.08, 1.0)),
        t.RandomHorizontalFlip(),
        t.RandomApply([t.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        t.RandomGrayscale(p=0.2),
    ]
    if blur:
        kernel = recipes.SIZES["tenth"](side)
        steps.append(t.RandomApply([t.GaussianBlur(kernel, (0.1, 2.0))], p=0.5))
    last = t.ToTensor() if t is v1 else t.ToDtype(torch.float32, scale=True)
    return t.Compose([*steps, last])


def two_views(transform: Callable[[object], Tensor], images: list[object]) -> Tensor:
    return torch.stack([torch.stack([transform(image), transform(image)]) for image in images])


def measure(device: str, dataset: str) -> Iterator[tuple[str, dict[str, float]]]:
    """(what, seconds an image and two views by name): "batched", "torchvision v1, Pillow" and "torchvision v2, tensors"."""
    for side, source, count, reference in SIZES:
        images = images_of(source, max(count, reference), dataset)
        on_device, tensors = images[:count].to(device), list(images[:reference])
        pillow = [TF.to_pil_image(image) for image in tensors]
        for blur in (False, True):
            views = recipes.load("simclr", side, blur=0.5 if blur else 0.0)
            reference_v1, reference_v2 = (torchvision_simclr(version, side, blur) for version in (v1, v2))
            works = {
                "batched": lambda views=views, batch=on_device: views(batch),
                "torchvision v1, Pillow": lambda t=reference_v1, batch=pillow: two_views(t, batch),
                "torchvision v2, tensors": lambda t=reference_v2, batch=tensors: two_views(t, batch),
            }
            taken = interleaved(works)
            numbers = {"batched": count}
            yield (
                f"two SimCLR views at {side}x{side}, {'with' if blur else 'without'} blur",
                {name: seconds / numbers.get(name, reference) for name, seconds in taken.items()},
            )
