"""Where a local feature is: coordinates predicted from it and the global vector (Deep InfoMax, 4.3 and A.6)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CoordinatePrediction(nn.Module):
    r"""An MLP p that tells a row and a column, two independent classes, from local features c and the global vector y.

    .. math:: \text{absolute: } -E[\log p(i \mid y, c_{ij}) + \log p(j \mid y, c_{ij})], \qquad
              \text{relative: } -E[\log p(i' - i \mid y, c_{ij}, c_{i'j'}) + \log p(j' - j \mid y, c_{ij}, c_{i'j'})]

    The absolute one is averaged over all locations of every image; the relative one draws one source (i, j) of each image and is
    averaged over all other locations (i', j') as targets. What a blind guess pays, log h + log w for the absolute one, less this
    cross-entropy is a lower bound of I(coordinates; c | y) in nats, so that to minimise it is to maximise that information.

    Two hidden layers with batch norm and ReLU (A.6). The first one is split by W [c, y] = W_c c + W_y y, as in `critics.Concat`, so
    that y is multiplied once for each image and not for each of its locations.

    Args:
        channels: C of the local map.
        features: D, the size of y.
        size: h and w of the local map.
        units: of the hidden layers.
        relative: tell the way from a source to a target instead of the place.

    >>> import torch
    >>> predict = CoordinatePrediction(channels=128, features=64, size=(8, 8), relative=True)
    >>> predict(torch.randn(16, 64, 128), torch.randn(16, 64)).ndim  # nats
    0
    """

    def __init__(
        self,
        channels: int,
        features: int,
        size: tuple[int, int],
        units: tuple[int, ...] = (512, 512),
        relative: bool = False,
    ):
        super().__init__()
        self.size, self.relative = size, relative
        self.classes = tuple(2 * side - 1 if relative else side for side in size)  # of rows and of columns
        first, *rest = units
        self.embed_local = nn.Linear(channels, first, bias=False)  # a batch norm follows
        self.embed_source = nn.Linear(channels, first, bias=False) if relative else None
        self.embed_y = nn.Linear(features, first, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm1d(first), nn.ReLU()]
        for inputs, outputs in zip(units, rest, strict=False):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(units[-1], sum(self.classes)))

    def forward(self, local: Tensor, y: Tensor) -> Tensor:
        """Local features (B, h*w, C), row by row, and y (B, D) -> the cross-entropy of row and column, a scalar in nats."""
        batch, locations, _ = local.shape
        place = torch.arange(locations, device=local.device)
        hidden = self.embed_local(local) + self.embed_y(y).unsqueeze(1)  # (B, L, U)
        asked = torch.ones(batch, locations, dtype=torch.bool, device=local.device)
        row, column = ((place // self.size[1]).expand(batch, -1), (place % self.size[1]).expand(batch, -1))  # (B, L)
        if self.relative:
            source = torch.randint(locations, (batch, 1), device=local.device)
            hidden = hidden + self.embed_source(local[torch.arange(batch, device=local.device).unsqueeze(1), source])
            row, column = row - source // self.size[1], column - source % self.size[1]  # from 1 - side to side - 1
            row, column = row + self.size[0] - 1, column + self.size[1] - 1
            asked = place != source  # from a place to itself there is nothing to tell
        logits = self.mlp(hidden.flatten(0, 1)).float()  # (B * L, rows + columns)
        nats = sum(
            F.cross_entropy(part, target.flatten(), reduction="none")
            for part, target in zip(logits.split(self.classes, dim=1), (row, column), strict=True)
        )
        return nats[asked.flatten()].mean()
