"""What can be said of a representation without any label: its rank, its spread, its dead units, and whether views agree."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_infomax.data import recipes
from hf_infomax.models.errors import UsageError

from .features import extract_features, location_and_scale, require_finite

#: The name of all of these in the column of probes, and each as a metric.
LABEL_FREE = "label-free"
HEALTH = ("rankme", "alignment", "uniformity", "dead_units")
#: Below this RankMe a representation tells images apart by one direction: it has collapsed.
COLLAPSED_RANK = 2.0
#: From this share of dead units on, a run is warned of them.
DEAD_SHARE = 0.5
#: Rows from which the rank is taken: it is that of a sample, and grows little beyond this.
_RANK_SAMPLES = 4096


def _matrix(features: Tensor, least: int = 2) -> Tensor:
    if features.dim() != 2 or len(features) < least:
        raise UsageError(f"Features have shape {tuple(features.shape)}: give (N, F) of {least} images or more.")
    require_finite(features=features)
    return features.float()


def rankme(features: Tensor) -> float:
    r"""RankMe: how many directions the features use, a smooth count of singular values.

    .. math:: \exp\Big( -\sum_k p_k \log p_k \Big), \qquad p_k = \frac{\sigma_k}{\sum_j \sigma_j}

    1 where all features lie on one line, min(N, F) where every direction is used alike. A pretraining loss that falls while this
    falls is a collapse; between runs of one method a higher rank mostly goes with a higher accuracy, between methods it need not.

    Args:
        features: (N, F), as they are: neither centred nor normalised. Of more than 4,096 rows the first are taken.

    Raises:
        UsageError: fewer than two images, or features that are not finite.

    Source: Garrido et al. 2023, RankMe, eq. 1.

    >>> round(rankme(torch.eye(8)), 3), round(rankme(torch.ones(8, 3)), 3)
    (8.0, 1.0)
    """
    values = torch.linalg.svdvals(_matrix(features)[:_RANK_SAMPLES])
    if values.sum() == 0:  # all features are zero, and use no direction
        return 1.0
    share = values.double() / values.double().sum()
    return torch.special.entr(share).sum().exp().item()


def alignment(x: Tensor, y: Tensor, power: float = 2.0) -> float:
    r"""How far apart the vectors of two views of an image lie on the unit sphere; 0 is agreement, less is better.

    .. math:: E\, \lVert \hat x - \hat y \rVert^{\alpha}, \qquad \hat v = v / \lVert v \rVert

    Alone it says nothing, for a collapsed representation has 0: read it beside `uniformity`.

    Args:
        x, y: (N, F), row i of both from the same image.
        power: alpha.

    Raises:
        UsageError: the two are not pairs, or not finite.

    Source: Wang and Isola 2020, Understanding contrastive representation learning, eq. 3.

    >>> alignment(torch.eye(4), torch.eye(4)), round(alignment(torch.eye(2), torch.eye(2).flip(0)), 3)
    (0.0, 2.0)
    """
    if x.shape != y.shape:
        raise UsageError(f"{tuple(x.shape)} and {tuple(y.shape)} are no pairs: give two views of the same images.")
    apart = F.normalize(_matrix(x, 1)) - F.normalize(_matrix(y, 1))
    return apart.norm(dim=1).pow(power).mean().item()


def uniformity(x: Tensor, t: float = 2.0) -> float:
    r"""How evenly vectors spread over the unit sphere; less is better, 0 is a collapse to one point.

    .. math:: \log E_{i \ne j}\, e^{-t \lVert \hat x_i - \hat x_j \rVert^2}

    Args:
        x: (N, F).
        t: the kernel's sharpness. The least value that points of a large dimension reach is about -2 t.

    Raises:
        UsageError: fewer than two images, or features that are not finite.

    Source: Wang and Isola 2020, eq. 5.

    >>> round(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 3), uniformity(torch.ones(3, 2)) > -1e-5
    (-8.0, True)
    """
    x = F.normalize(_matrix(x))
    total, count = x.new_zeros((), dtype=torch.float64), len(x) * (len(x) - 1)
    for start in range(0, len(x), 1024):  # the pairs of all would be N x N
        kernel = (2 * t * (x[start : start + 1024] @ x.T - 1)).exp()  # |x - y|^2 = 2 - 2 x.y
        total += kernel.double().sum() - kernel.diagonal(start).double().sum()
    return (total / count).log().clamp(max=0.0).item()


def dead_units(features: Tensor) -> float:
    """The share of units that say the same of every image, in [0, 1].

    A unit is dead where it varies by no more than rounding does, the rule by which the probes leave it out, see
    `features.location_and_scale`.

    Args:
        features: (N, F).

    Raises:
        UsageError: fewer than two images, or features that are not finite.

    >>> dead_units(torch.tensor([[0.0, 1.0, 2.0, 5.0], [0.0, 1.0, 3.0, 5.0]]))
    0.75
    """
    _, scale = location_and_scale(_matrix(features))
    return (scale == 0).float().mean().item()


def collapse_warnings(layer: str, rank: float, dead: float) -> tuple[str, ...]:
    """What is wrong with a layer of that RankMe and that share of dead units, as sentences without a full stop; mostly nothing.

    >>> collapse_warnings("y", rank=30.0, dead=0.1)
    ()
    """
    found = []
    if rank < COLLAPSED_RANK:
        found.append(f"layer {layer} has collapsed: its RankMe is {rank:.2f}, images hardly differ in it")
    if dead >= DEAD_SHARE:
        found.append(f"{dead:.0%} of the units of layer {layer} are dead: equal for all images")
    return tuple(found)


@dataclass(frozen=True)
class Health:
    """What a run is told of its representation without labels, and what of it is a warning."""

    layer: str
    units: int  #: F
    rankme: float  #: see `rankme`
    dead_units: float  #: see `dead_units`
    uniformity: float  #: see `uniformity`
    alignment: float  #: see `alignment`; of an image and of a crop of it

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences, none where nothing is wrong; see `collapse_warnings`."""
        return collapse_warnings(self.layer, self.rankme, self.dead_units)

    def values(self) -> dict[str, float]:
        """Name of the measure -> its value, as in a table or in metrics.jsonl."""
        return {name: getattr(self, name) for name in HEALTH}


def representation_health(
    model: Any, pixels: Tensor, layer: str | None = None, features: Tensor | None = None, seed: int = 0, **options: Any
) -> Health:
    """All measures of this file for one layer of a model.

    The second view, for the alignment, is a random resized crop and flip of each image (the recipe "cmc" with crop = 0.2), the same
    for every method, so that runs can be compared.

    Args:
        model: as `hf_infomax.evaluation.extract_features` takes it.
        pixels: (N, 3, H, W) uint8 or in [0, 1], squares of the model's size.
        layer: its name; None: the last, the global vector.
        features: of these images at this layer, (N, F), where they are at hand.
        seed: of the crops.
        options: of `extract_features`.

    Raises:
        UsageError: no such layer, fewer than two images, or features that are not finite.

    >>> import hf_infomax
    >>> model = hf_infomax.DIMModel(hf_infomax.DIMConfig())
    >>> representation_health(model, torch.rand(16, 3, 32, 32), progress=False).units
    64
    """
    layer = layer or model.feature_layers[-1]
    crops = recipes.load("cmc", pixels.shape[-1], crop=0.2, seed=seed)
    cropped = crops(pixels, sample_index=torch.arange(len(pixels)))["pixel_values"]
    if features is None:
        features = extract_features(model, pixels, [layer], **options)[layer]
    return Health(
        layer=layer,
        units=features.shape[1],
        rankme=rankme(features),
        dead_units=dead_units(features),
        uniformity=uniformity(features),
        alignment=alignment(features, extract_features(model, cropped, [layer], **options)[layer]),
    )
