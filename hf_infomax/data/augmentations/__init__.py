"""Random changes of a whole batch: each image has parameters of its own, and nothing loops over images.

An augmentation is a module with the arguments and the semantics of torchvision's or timm's transform of the same name:
(B, 3, H, W) -> (B, 3, h, w), floating point in [0, 1] or uint8, on the device of the images, under `torch.compile` too.
It draws from a `Draws`, whose numbers depend on seed, epoch and index alone; without one, from torch's generator.

    crops         RandomResizedCrop, RandomCrop, HorizontalFlip                                   where to look
    colors        ColorJitter, RandomGrayscale, ColorDropping, GaussianBlur, Solarize, Normalize  how it looks
    randaugment   RandAugment                                                                     both, strongly
    jigsaw        JigsawPatches                                                                   in pieces
    occlusion     Occlusion                                                                       in part
    pairs         DistantPatches, FrequencySeparation                                             as two views

    randomness    Draws: counter-based random numbers
    geometry      one affine map an image, for pixels, labels, boxes, flow and normals alike
    warp          Warp: rotations, shears and any other affine map
    photometry    pure functions of images and one parameter an image
    sample        the columns of a batch that move together
"""

from .base import Augmentation, GeometricAugmentation
from .colors import ColorDropping, ColorJitter, GaussianBlur, Normalize, RandomGrayscale, Solarize
from .crops import HorizontalFlip, RandomCrop, RandomResizedCrop
from .jigsaw import JigsawPatches
from .occlusion import Occlusion
from .pairs import DistantPatches, FrequencySeparation
from .randaugment import RandAugment
from .randomness import Draws
from .sample import KINDS, Sample

__all__ = [
    "KINDS",
    "Augmentation",
    "ColorDropping",
    "ColorJitter",
    "DistantPatches",
    "Draws",
    "FrequencySeparation",
    "GaussianBlur",
    "GeometricAugmentation",
    "HorizontalFlip",
    "JigsawPatches",
    "Normalize",
    "Occlusion",
    "RandAugment",
    "RandomCrop",
    "RandomGrayscale",
    "RandomResizedCrop",
    "Sample",
    "Solarize",
]
