"""What two views tell of each other: InfoNCE among thousands of held-out images, in nats."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_infomax.data import DecodedDataset, VariableImages, every_image
from hf_infomax.models.bounds import infonce
from hf_infomax.models.errors import UsageError

from .features import evaluation_mode, to_unit_range

#: Temperatures among which the critic's is chosen.
TEMPERATURES = tuple(torch.logspace(-2, 0, 25).tolist())

_ANCHORS = 512  # rows of the score matrix held at a time


def paired_information(x: Tensor, y: Tensor, temperature: float) -> float:
    r"""InfoNCE of N pairs, each anchor against the N - 1 others, the mean of both directions; at most log N nats.

    .. math:: \hat I(X; Y) = \tfrac{1}{2N} \sum_i \Big[ \log \frac{e^{s_{ii}}}{\frac{1}{N} \sum_j e^{s_{ij}}} +
              \log \frac{e^{s_{ii}}}{\frac{1}{N} \sum_j e^{s_{ji}}} \Big], \quad s_{ij} = \cos(x_i, y_j) / \tau

    CMC's eq. 6 with its constant, by `hf_infomax.bounds.infonce`, without the whole matrix at once.

    Args:
        x, y: (N, D), row i of both from the same image.
        temperature: tau.

    Raises:
        UsageError: the two are not pairs.

    >>> x = torch.eye(8)
    >>> round(paired_information(x, x, temperature=0.05), 3)  # log 8: each is found among eight
    2.079
    """
    if x.shape != y.shape or len(x) < 2:
        raise UsageError(f"{tuple(x.shape)} and {tuple(y.shape)} are no pairs: give two or more rows, as many of each.")
    x, y = F.normalize(x.float(), dim=1), F.normalize(y.float(), dim=1)
    estimates = []
    for anchors, others in ((x, y), (y, x)):
        for start in range(0, len(x), _ANCHORS):
            scores = anchors[start : start + _ANCHORS] @ others.T / temperature  # (A, N)
            own = torch.arange(start, start + len(scores), device=x.device).unsqueeze(1)
            positive = scores.gather(1, own).squeeze(1)
            estimates.append(infonce(positive, scores.scatter(1, own, -torch.inf), reduction="none"))
    return torch.cat(estimates).mean().item()


def fit_temperature(x: Tensor, y: Tensor, temperatures: Sequence[float] = TEMPERATURES) -> float:
    """The temperature of the tightest bound, to be found on other images than it is used on."""
    return max(temperatures, key=lambda temperature: paired_information(x, y, temperature))


@torch.no_grad()
def view_information(
    model: torch.nn.Module, train: Tensor, test: Tensor, images: int = 10_000, batch_size: int = 512
) -> dict[str, float]:
    """A lower bound of the mutual information between the global vectors of each two views of an image, in nats.

    The critic is the one that CMC trains, the cosine over a temperature, chosen on training images. The number of test images is
    the ceiling: log(10,000) = 9.2 nats. MINE, of which CMC's Figure 5 is made, has none, and a larger variance.

    Args:
        model: of several views that the image alone gives; has `feature_views` and `features`.
        train, test: (N, 3, H, W) uint8, or in [0, 1].
        images: at most so many of each.
        batch_size: images in one pass.

    Returns:
        "L;ab" -> nats.

    Raises:
        UsageError: the model has one view.
    """
    names = tuple(getattr(model, "feature_views", ()))
    if len(names) < 2:
        raise UsageError("Information between views needs a model of two views or more, such as CMC's {L, ab}.")
    device = next(model.parameters()).device
    with evaluation_mode(model):
        vectors = [
            {name: _vectors(model, name, pixels[:images], batch_size, device) for name in names}
            for pixels in (train, test)
        ]
    found = {}
    for one, other in combinations(names, 2):
        temperature = fit_temperature(vectors[0][one], vectors[0][other])
        found[f"{one};{other}"] = paired_information(vectors[1][one], vectors[1][other], temperature)
    return found


@torch.no_grad()
def augmentation_information(
    model: torch.nn.Module,
    views: Callable[..., Mapping[str, Tensor]],
    train: Tensor | VariableImages,
    test: Tensor | VariableImages,
    images: int = 4096,
    batch_size: int = 512,
) -> float:
    r"""A lower bound of the mutual information between two augmentations of an image, as the trained critic tells them, in nats.

    .. math:: \hat I(V_1; V_2) = \max_\tau I_{\text{NCE}}\big(z(t_1(x)), z(t_2(x))\big), \quad t_1, t_2 \sim T

    with z the vectors that the model compares, behind its head, and I_NCE of `paired_information` among N held-out images, at most
    log N; tau is chosen on training images. This is the horizontal axis of Tian et al. 2020, "What makes for good views", Figures 5
    and 6, for which the strength of T is slid. Each image is shown in views that no epoch of training had. Its sibling for
    the channels of an image is `view_information`.

    Args:
        model: of one view; has `embeddings(pixel_values=...)`, name -> (B, D), the first of which is taken.
        views: the recipe that the model was trained with, at the same strength, as `hf_infomax.data.recipes.load` gives it; of
            more than two augmentations the first two are compared, and one that gives a single one is asked twice.
        train, test: (N, 3, H, W) uint8, or in [0, 1]; or of different sizes, as `hf_infomax.data.decode_images` gives them.
        images: at most so many of each, the first.
        batch_size: images in one pass.

    Raises:
        UsageError: there are not two images.

    >>> import hf_infomax
    >>> from hf_infomax.data import recipes
    >>> model = hf_infomax.InstDiscForPreTraining(hf_infomax.InstDiscConfig.preset("simclr"))
    >>> train, test = (torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8) for _ in range(2))
    >>> augmentation_information(model, recipes.load("simclr", image_size=32), train, test) < 2.78  # log 16
    True
    """
    with evaluation_mode(model):
        pairs = [_augmented_vectors(model, views, pixels, images, batch_size) for pixels in (train, test)]
    return paired_information(*pairs[1], fit_temperature(*pairs[0]))


def _augmented_vectors(
    model: Any,
    views: Callable[..., Mapping[str, Tensor]],
    pixels: Tensor | VariableImages,
    images: int,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """The vectors (N, D) of two augmentations of each of the first images."""
    count = min(images, len(pixels))
    if count < 2:
        raise UsageError(f"{count} images cannot be told apart: give two or more, of each split.")
    device = next(model.parameters()).device
    first, second = [], []
    seen = 0
    for batch in every_image(DecodedDataset(pixels), min(batch_size, count)):
        batch = {name: column.to(device) for name, column in batch.items()}
        shown = views(**batch, epoch=-1)["pixel_values"]  # (B, [V,] 3, h, w)
        if shown.dim() == 4:
            shown = torch.stack([shown, views(**batch, epoch=-2)["pixel_values"]], dim=1)  # (B, 2, 3, h, w)
        for vectors, augmented in ((first, shown[:, 0]), (second, shown[:, 1])):
            vectors.append(next(iter(model.embeddings(pixel_values=augmented).values())))
        seen += len(shown)
        if seen >= count:
            break
    return torch.cat(first)[:count], torch.cat(second)[:count]


def _vectors(model: Any, view: str, pixels: Tensor, batch_size: int, device: torch.device) -> Tensor:
    batches = pixels.split(batch_size)
    return torch.cat([model.features(to_unit_range(batch.to(device)), views=[view]) for batch in batches])
