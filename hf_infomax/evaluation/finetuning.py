"""Fine-tuning: an encoder trained on with labels, end to end, under a small network on one of its layers."""

import copy
from contextlib import nullcontext
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from hf_infomax.data import recipes
from hf_infomax.models.encoder import flatten_layer
from hf_infomax.models.errors import UsageError, choose, unknown_name

from .features import PRECISIONS, to_unit_range
from .few_labels import draw_per_class
from .mlp import check_training, small_network, step_decay
from .probes import ProbeResult
from .splits import accuracy, number_classes, seeded, shuffled_batches

#: The precisions that train without a scaled loss.
TRAINABLE = {name: dtype for name, dtype in PRECISIONS.items() if dtype is not torch.float16}


class FineTuned(nn.Module):
    """An encoder and a small network on one of its layers: images (B, 3, H, W) in [0, 1] -> scores (B, C)."""

    def __init__(self, encoder: nn.Module, layer: str, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.layer, self.head = encoder, layer, head

    def forward(self, images: Tensor) -> Tensor:
        layers = self.encoder.layers(images.contiguous(memory_format=torch.channels_last))
        return self.head(flatten_layer(layers[self.layer]))


def _check_images(train_pixels: Tensor, train_y: Tensor, test_pixels: Tensor, test_y: Tensor) -> None:
    for split, pixels, labels in (("training", train_pixels, train_y), ("test", test_pixels, test_y)):
        if not len(pixels) or len(pixels) != len(labels):
            raise UsageError(f"The {split} split has {len(pixels)} images and {len(labels)} labels: give one for each.")
    if train_pixels.shape[1:] != test_pixels.shape[1:] or train_pixels.shape[-1] != train_pixels.shape[-2]:
        shapes = f"{tuple(train_pixels.shape[1:])} and {tuple(test_pixels.shape[1:])}"
        raise UsageError(f"Training and test images are {shapes}: decode them as squares of one size.")


def _build(model: nn.Module, layer: str, classes: int, hidden: int, dropout: float, example: Tensor) -> FineTuned:
    """A copy of the encoder, trainable throughout, with a fresh network as wide as the layer."""
    encoder = copy.deepcopy(model).requires_grad_(True).to(example.device)
    with torch.no_grad():
        features = flatten_layer(encoder.eval().layers(example)[layer]).shape[1]
    return FineTuned(encoder, layer, small_network(features, classes, hidden, dropout).to(example.device))


@torch.no_grad()
def _predict(network: FineTuned, pixels: Tensor, device: torch.device, batch_size: int = 512) -> Tensor:
    network.eval()
    batches = (to_unit_range(part.to(device)) for part in pixels.split(batch_size))
    return torch.cat([network(batch).argmax(dim=1) for batch in batches])


@torch.inference_mode(False)
@torch.enable_grad()
def finetune(
    model: nn.Module,
    train_pixels: Tensor,
    train_y: Tensor,
    test_pixels: Tensor,
    test_y: Tensor,
    seed: int = 0,
    layer: str = "conv",
    labels_per_class: int | None = None,
    hidden: int = 200,
    dropout: float = 0.1,
    epochs: int = 30,
    average: int = 5,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    device: torch.device | str | None = None,
    precision: str | None = None,
    progress: bool = True,
) -> ProbeResult:
    """Test accuracy of the whole encoder trained with labels, under a network of one hidden layer, averaged over the last epochs.

    Training images are cropped after a padding of 4 pixels, and flipped (`recipes.load("crop_flip")`); test images are left as they
    are. Adam's learning rate falls twice (`step_decay`). What pretraining is worth is the difference to the same call on a freshly
    initialised encoder of the same configuration.

    Args:
        model: has `feature_layers`, the names, and `layers(pixel_values)`, name -> map (B, C, h, w) or vector (B, D). It is
            copied, and stays as it is.
        train_pixels, test_pixels: (N, 3, H, H) and (M, 3, H, H), uint8 or floating point in [0, 1].
        train_y, test_y: integer classes, (N,) and (M,).
        seed: of the labels drawn, the small network, its dropout, the batches and the crops.
        layer: the one under the small network; what the encoder computes after it is not used.
        labels_per_class: None: all training images are labelled; else so many of each class, drawn at random.
        hidden, dropout: of the small network.
        epochs, average: how many, and how many of the last count.
        batch_size, learning_rate: of Adam.
        device: where to train; None: where the model is.
        precision: "bf16" trains under autocast; None, "no" and "fp32" do not.
        progress: show a bar, which goes away when it is done.

    Returns:
        Metric "accuracy", in [0, 1]; `settings` holds what it was trained with.

    Raises:
        UsageError: there is no such layer or precision, images and labels do not fit, labels are not integers, there is only one
            class, a class has fewer labels than asked for, or a setting is out of range.

    Source: Hjelm et al. 2019, Learning Deep Representations by Mutual Information Estimation and Maximization, 4.1, Table 2 (SS).

    `mlp_probe` trains the same network on the frozen layer.

    >>> from hf_infomax import AutoModel  # doctest: +SKIP
    >>> finetune(AutoModel.from_pretrained("runs/dim/model"), *train, *test, labels_per_class=100)  # doctest: +SKIP
    """
    if layer not in model.feature_layers:
        raise unknown_name("layer", layer, tuple(model.feature_layers))
    dtype = None if precision is None else choose("precision", precision, TRAINABLE)
    check_training(epochs, average, batch_size)
    _check_images(train_pixels, train_y, test_pixels, test_y)
    labels, test_labels, classes = number_classes(train_y, test_y)
    labelled = torch.arange(len(labels)) if labels_per_class is None else draw_per_class(labels, labels_per_class, seed)
    device = next(model.parameters()).device if device is None else torch.device(device)
    pixels, labels = train_pixels[labelled].to(device), labels[labelled].to(device)
    views, last = recipes.load("crop_flip", pixels.shape[-1], seed=seed), []
    with seeded(seed, device):
        network = _build(model, layer, len(classes), hidden, dropout, to_unit_range(pixels[:1]))
        optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=True)
        decay = step_decay(optimizer, epochs)
        for epoch in tqdm(range(epochs), desc="finetune", unit="epoch", leave=False, disable=not progress):
            network.train()
            for index in shuffled_batches(len(pixels), batch_size, device):
                # A batch norm cannot train on the one image that may be left over.
                if len(index) == 1 < batch_size:
                    continue
                images = views(pixel_values=pixels[index], sample_index=index, epoch=epoch)["pixel_values"]
                with torch.autocast(device.type, dtype) if dtype else nullcontext():
                    loss = F.cross_entropy(network(images), labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            decay.step()
            if epoch >= epochs - average:
                last.append(accuracy(_predict(network, test_pixels, device), test_labels))
    settings = {"layer": layer, "labels_per_class": labels_per_class, "hidden": hidden, "dropout": dropout}
    settings |= {"epochs": epochs, "average": average, "batch_size": batch_size, "learning_rate": learning_rate}
    return ProbeResult(fmean(last), "accuracy", settings=settings)
