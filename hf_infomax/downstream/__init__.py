"""Pretrained encoders inside larger models, and what these are measured by.

    segmentation   one view's encoder -> a U-Net with segmentation_models_pytorch's decoder      (requirements: the extra)
    maps           what that decoder is given, computed once for a frozen encoder
    labels         the label maps of a dataset
    metrics        predicted and true label maps -> mean IoU and pixel accuracy
    figures        image, truth and prediction beside each other

Needs `pip install "hf-infomax[downstream]"`.
"""

from .figures import plot_segmentations
from .labels import IGNORED, LabelMaps
from .maps import compute_maps
from .metrics import SegmentationScores, count_pixels, segmentation_scores
from .segmentation import MapDecoder, UNet

__all__ = [
    "IGNORED",
    "LabelMaps",
    "MapDecoder",
    "SegmentationScores",
    "UNet",
    "compute_maps",
    "count_pixels",
    "plot_segmentations",
    "segmentation_scores",
]
