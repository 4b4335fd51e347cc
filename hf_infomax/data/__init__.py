"""From datasets to batches of views, one step a file.

    loading         a name -> a `datasets.Dataset`, or a stream of one      (embedded sets are caught before the Hub)
    colour_digits   an embedded set with known factors of variation
    scenes          another, rendered: depth, normals, labels, boxes and short clips       (rendering: the ray caster)
    images          an image column -> its images, decoded once             (decoding: one image; cache: built safely;
                                                                             stores: mapped into memory)
    clips           frames before and after an image, as columns that read the same images       (flow: between frames)
    batches         those images, or a stream -> a `DataLoader` of {"pixel_values", "sample_index", ..., "present"}
    augmentations   random changes of a whole batch, with parameters of its own for every image
    recipes         augmentations by name and strength -> the views of a batch      (recipe_table: what is made of what;
                                                                             views: what makes them)
    sheet           a picture of them: python -m hf_infomax.data RECIPE DATASET

Example:
    >>> from hf_infomax import data
    >>> digits = data.load_dataset("hf_infomax/colour_digits", "train[:512]")
    >>> decoded = data.decode_images(digits, data.find_image_column(digits), image_size=32, progress=False)
    >>> loader = data.data_loader(data.DecodedDataset(decoded.pixels), batch_size=256, shuffle=True, drop_last=True)
    >>> views = data.recipes.load("simclr", image_size=32)
    >>> for epoch in range(2):
    ...     for batch in loader:
    ...         batch |= views(**batch, epoch=epoch)  # pixel_values (256, 2, 3, 32, 32) float32 in [0, 1]
"""

from . import augmentations, recipes
from .batches import DecodedDataset, StreamingImages, collate, data_loader, every_image
from .clips import Clips
from .colour_digits import ColourDigits
from .flow import optical_flow
from .images import DecodedImages, decode_images
from .loading import EMBEDDED, find_image_column, find_label_column, load_dataset, require_column
from .scenes import Scenes
from .sheet import view_sheet
from .stores import VariableImages
from .views import Views

__all__ = [
    "EMBEDDED",
    "Clips",
    "ColourDigits",
    "DecodedDataset",
    "DecodedImages",
    "Scenes",
    "StreamingImages",
    "VariableImages",
    "Views",
    "augmentations",
    "collate",
    "data_loader",
    "decode_images",
    "every_image",
    "find_image_column",
    "find_label_column",
    "load_dataset",
    "optical_flow",
    "recipes",
    "require_column",
    "view_sheet",
]
