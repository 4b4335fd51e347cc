"""Matching the distribution of a representation to a prior, adversarially (Deep InfoMax, 3.3, eq. 7, Table 9)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _uniform(shape: torch.Size, device: torch.device) -> Tensor:
    return torch.rand(shape, device=device)


def _gaussian(shape: torch.Size, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device)


def _sphere(shape: torch.Size, device: torch.device) -> Tensor:
    return F.normalize(torch.randn(shape, device=device), dim=-1)


def _ball(shape: torch.Size, device: torch.device) -> Tensor:
    # The radius of a uniform point of a D-dimensional ball is distributed as U^(1/D).
    return _sphere(shape, device) * torch.rand(*shape[:-1], 1, device=device).pow(1 / shape[-1])


#: name -> (shape, device) -> a sample (B, D)
PRIORS: dict[str, Callable[[torch.Size, torch.device], Tensor]] = {
    "uniform": _uniform,
    "gaussian": _gaussian,
    "ball": _ball,
    "sphere": _sphere,
}


class PriorMatching(nn.Module):
    r"""Make the marginal distribution of y look like a prior V, by a min-max between y's encoder and a discriminator.

    .. math:: \min_\psi \max_\phi\; E_{v \sim V}[\log D_\phi(v)] + E_x[\log(1 - D_\phi(E_\psi(x)))]

    The uniform prior on [0, 1]^D is matched by sigmoid(y); Gaussian, unit ball and unit sphere by y itself.

    One loss, one backward, one optimizer serve both players, and yet each follows its own objective: the discriminator's term sees
    y detached, so it moves no encoder; the encoder's term goes through a copy of the discriminator with detached weights, so it
    moves no discriminator. The encoder's term is the non-saturating -E[log D(y)] unless `saturating`, which is eq. 7 as printed
    and gives no gradient where the discriminator is sure.

    Args:
        features: D, the size of y.
        prior: "uniform", "gaussian", "ball" or "sphere".
        units: sizes of the discriminator's hidden layers (Table 9).
        saturating: minimise E[log(1 - D(y))] in the encoder's term.

    >>> import torch
    >>> terms = PriorMatching(64)(torch.randn(8, 64))
    >>> sorted(terms)
    ['prior_discriminator', 'prior_encoder']
    """

    def __init__(
        self, features: int, prior: str = "uniform", units: tuple[int, ...] = (1000, 200), saturating: bool = False
    ):
        super().__init__()
        self.sample = PRIORS[prior]
        self.squash = torch.sigmoid if prior == "uniform" else nn.Identity()
        self.saturating = saturating
        layers: list[nn.Module] = []
        for size in units:
            layers += [nn.Linear(features, size), nn.ReLU()]
            features = size
        self.discriminator = nn.Sequential(*layers, nn.Linear(features, 1))

    def forward(self, y: Tensor) -> dict[str, Tensor]:
        """y (B, D) -> the two terms to be minimised, both in nats of binary cross-entropy."""
        y = self.squash(y.float())
        real = self.sample(y.shape, y.device)
        on_real, on_y = self.discriminator(real).float(), self.discriminator(y.detach()).float()  # (B, 1), logits of D
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        through = torch.func.functional_call(self.discriminator, frozen, (y,)).float()  # (B, 1), moves y only
        return {
            "prior_discriminator": F.softplus(-on_real).mean() + F.softplus(on_y).mean(),
            "prior_encoder": -F.softplus(through).mean() if self.saturating else F.softplus(-through).mean(),
        }
