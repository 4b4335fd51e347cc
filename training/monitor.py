"""What a run is asked while it trains: the kNN on held-out images, and what needs no label to be seen."""

import datasets
import numpy as np
import torch
from torch import Tensor

import hf_infomax
from hf_infomax import data
from hf_infomax.evaluation import Health, extract_features, knn_accuracy, representation_health
from recipe import Recipe
from sources import load_split

#: Held-out images by which the health is told: the rank of so many is near that of all, and it is asked every epoch.
HEALTH_IMAGES = 1000


class Monitor:
    """Held-out images, and images of the training split that vote on them at every layer.

    Labels are used for the kNN and nowhere else; without them the health remains. The test split is not touched. Without a
    held-out split there is no monitor. The voters are rows of the images that are trained on, decoded once, wherever these
    are squares.
    """

    def __init__(self, recipe: Recipe, image_size: int):
        settings = recipe.data
        self.k = recipe.eval.k
        self.queries, _, self.query_labels = self._images(recipe, settings.eval_split, None, image_size)
        self.bank, self.bank_rows, self.bank_labels = None, None, None
        if self.query_labels is not None:
            found = self._images(recipe, settings.train_split, recipe.eval.bank, image_size)
            self.bank, self.bank_rows, self.bank_labels = found

    @classmethod
    def build(cls, recipe: Recipe, image_size: int) -> "Monitor | None":
        """A monitor, or None where the recipe asks for none or has no held-out split.

        Raises:
            UsageError: there is none, or no kNN, but train.schedule=plateau goes by it.
        """
        missing = cls._missing(recipe)
        monitor = None if missing else cls(recipe, image_size)
        if monitor and monitor.query_labels is None:
            missing = f"'{recipe.data.eval_split}' has no column of classes: set data.label_column"
        if missing and recipe.train.schedule == "plateau":
            raise hf_infomax.UsageError(
                f"train.schedule=plateau goes by the periodic kNN, but {missing}, or choose another train.schedule."
            )
        return monitor

    @staticmethod
    def _missing(recipe: Recipe) -> str | None:
        """What keeps the recipe from a monitor, and the way out; None where nothing does."""
        if not recipe.eval.every:
            return "eval.every=0 asks for none: set eval.every=1"
        if not recipe.data.eval_split:
            return "there is no held-out split: set data.eval_split"
        return None

    @staticmethod
    def _images(
        recipe: Recipe, split_name: str, count: int | None, image_size: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Squares (N, 3, image_size, image_size), the places in them of `count` random images, and these images' labels, None
        where there are none."""
        settings, split = recipe.data, load_split(recipe, split_name)
        column = data.find_image_column(split, settings.image_column)
        label = data.find_label_column(split, settings.label_column)
        if settings.streaming:
            split, count = first_rows(split, [column, label], count or recipe.eval.bank), None
        rows = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
        if settings.shorter_side:  # the images that are trained on are no squares: a cache of these rows alone
            split, rows = split.select(rows), np.arange(len(rows))
        decoded = data.decode_images(
            split, column, image_size, on_corrupt=settings.on_corrupt, cache=not settings.streaming
        )
        places = torch.isin(decoded.indices, torch.from_numpy(rows)).nonzero().flatten()  # skipped rows are not there
        labels = None if label is None else torch.tensor(split[label][:])[decoded.indices[places]]
        return decoded.pixels, places, labels

    def knn(self, model: torch.nn.Module) -> dict[str, float]:
        """Accuracy by layer; nothing where there are no labels."""
        if self.query_labels is None:
            return {}
        bank = extract_features(model, self.bank[self.bank_rows], progress=False)
        queries = extract_features(model, self.queries, progress=False)
        return {
            layer: knn_accuracy(queries[layer], self.query_labels, bank[layer], self.bank_labels, k=self.k)
            for layer in bank
        }

    def health(self, model: torch.nn.Module) -> Health:
        """Of the last layer, the representation itself."""
        return representation_health(model, self.queries[:HEALTH_IMAGES], progress=False)


def first_rows(stream: datasets.IterableDataset, columns: list[str | None], count: int) -> datasets.Dataset:
    """The first rows of a stream: its image column, still encoded, and its label column, where it has one."""
    image, features = columns[0], stream.features
    named = [name for name in columns if name is not None]
    encoded = stream.select_columns(named).cast_column(image, datasets.Image(decode=False))
    return datasets.Dataset.from_list(
        list(encoded.take(count)), features=datasets.Features({name: features[name] for name in named})
    )
