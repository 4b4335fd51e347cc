"""Where a recipe's images come from: the loader of the training split, and the held-out split of the periodic kNN."""

from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.utils.data import DataLoader

import hf_infomax
from hf_infomax import data
from hf_infomax.evaluation import extract_features, knn_accuracy
from recipe import Recipe


def view_options(recipe: Recipe) -> dict[str, Any]:
    """`views.*` of a recipe as the arguments of `hf_infomax.data.recipes.load`: a name and its strengths."""
    strengths = dict(recipe.views)
    return {"name": strengths.pop("recipe", "dim"), **strengths}


def load_split(recipe: Recipe, split: str) -> Dataset | IterableDataset:
    return data.load_dataset(recipe.data.dataset, split, config=recipe.data.config, streaming=recipe.data.streaming)


def training_loader(recipe: Recipe, image_size: int, accelerator: Accelerator) -> tuple[DataLoader, int | None]:
    """The loader of the training split and its number of images: decoded once into memory, or a stream of unknown length.

    Every epoch drops its last incomplete batch: the number of negatives, and with it the bound, is the same at every step.
    """
    settings, batch_size = recipe.data, recipe.train.batch_size
    with accelerator.main_process_first():  # the others find what the first one cached
        split = load_split(recipe, settings.train_split)
    column = data.find_image_column(split, settings.image_column)
    if not settings.streaming:
        decoded = data.decode_images(split, column, image_size, settings.on_corrupt, accelerator.is_main_process)
        images = data.DecodedDataset(decoded.pixels)
        return data.data_loader(images, batch_size, shuffle=True, drop_last=True, workers=settings.workers), len(images)
    if recipe.train.max_steps is None:
        raise hf_infomax.UsageError("A stream has no known length: set train.max_steps, with data.streaming=true.")
    split = split.shuffle(seed=recipe.train.seed, buffer_size=settings.shuffle_buffer)
    # Read by one process and dealt out by Accelerate.
    images = data.StreamingImages(split, column, image_size, settings.on_corrupt)
    return data.data_loader(images, batch_size, shuffle=False, drop_last=True, workers=settings.workers), None


class Monitor:
    """The periodic kNN: images of the training split vote on those of the held-out split, at every layer.

    Labels are used here and nowhere else; the test split is not touched. Without labels or a held-out split it is not made.
    """

    def __init__(self, recipe: Recipe, image_size: int):
        self.k = recipe.eval.k
        self.bank, self.bank_labels = self._images(recipe, recipe.data.train_split, recipe.eval.bank, image_size)
        self.queries, self.query_labels = self._images(recipe, recipe.data.eval_split, None, image_size)

    @classmethod
    def build(cls, recipe: Recipe, image_size: int) -> "Monitor | None":
        """A monitor, or None where the recipe asks for none or the dataset has no labels."""
        if not recipe.eval.every or not recipe.data.eval_split:
            return None
        split = load_split(recipe, recipe.data.eval_split)
        return cls(recipe, image_size) if data.find_label_column(split, recipe.data.label_column) else None

    @staticmethod
    def _images(recipe: Recipe, split_name: str, count: int | None, image_size: int) -> tuple[Tensor, Tensor]:
        split = load_split(recipe, split_name)
        if recipe.data.streaming:
            features = split.features
            rows = list(split.take(count or recipe.eval.bank))
            split = Dataset.from_list(rows, features=features)
        elif count is not None and count < len(split):
            split = split.shuffle(seed=0).select(range(count))
        column = data.find_image_column(split, recipe.data.image_column)
        label = data.find_label_column(split, recipe.data.label_column)
        decoded = data.decode_images(split, column, image_size, recipe.data.on_corrupt)
        return decoded.pixels, torch.tensor(split[label][:])[decoded.indices]

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """Accuracy by layer."""
        bank = extract_features(model, self.bank, progress=False)
        queries = extract_features(model, self.queries, progress=False)
        return {
            layer: knn_accuracy(queries[layer], self.query_labels, bank[layer], self.bank_labels, k=self.k)
            for layer in bank
        }
