"""Critics: (x, y) -> scores. The papers' discriminators, witness functions and similarity heads.

One contract for all. Of B images,

    x  (B, L, C)   L features of each image: the locations of a map (L = h * w), or one vector (L = 1)
    y  (B, D)      one vector of each image

and `critic(x, y)` asks about every pair of images: (B, B, L), rows are y's, columns are x's. `critic(x, y, candidates)` asks each y
only about the images that `candidates` (B, K) names: (B, K, L). A critic knows neither which pairs are positive nor what is done
with the scores. Scores are float32 whatever the autocast: in bfloat16 an InfoNCE of 8.41 moves by 0.02.

Each is `compare(embed_x(x), y, candidates)`: what does not depend on y is computed once for each x, before pairs are made, and of
several processes each embeds its own images and gets the rest from the others. Critics that are a dot product say so by
`dot_product`, and of what by `embed_x` and `embed_y`: a memory bank asks them for far less.

| critic | T(x, y) | asks about all pairs at the cost of |
|---|---|---|
| `Dot` | x . y, of what has been embedded already | one matmul |
| `Cosine` | cos(x, y) / temperature | one matmul |
| `Bilinear` | x W y / temperature, of unit vectors | one matmul |
| `EncodeAndDot` | f(x) . g(y) in a space of many units | one matmul, f once for each x |
| `Concat` | MLP([x, y]) | an MLP for each pair: prefer few candidates |
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import choose


def dot_scores(x: Tensor, y: Tensor, candidates: Tensor | None = None) -> Tensor:
    """Dot products of every y with every x, in float32, by one matmul.

    Args:
        x: (N, L, U) and y: (B, U), in the same space.
        candidates: (B, K) int64, those of the N images that each y is compared with; all when None.

    Returns:
        (B, N, L) or (B, K, L) scores.
    """
    images, locations, units = x.shape
    with torch.autocast(x.device.type, enabled=False):
        scores = y.float() @ x.reshape(images * locations, units).float().T  # (B, N * L)
    scores = scores.unflatten(1, (images, locations))  # (B, N, L)
    if candidates is None:
        return scores
    return scores.gather(1, candidates.unsqueeze(-1).expand(-1, -1, locations))  # (B, K, L)


class Critic(nn.Module):
    """What all critics share; each gives `embed_x`, a module or a method, and `compare`."""

    dot_product = False

    def forward(self, x: Tensor, y: Tensor, candidates: Tensor | None = None) -> Tensor:
        """x (B, L, C), y (B, D) and perhaps candidates (B, K) -> scores (B, B, L) or (B, K, L)."""
        return self.compare(self.embed_x(x), y, candidates)

    def compare(self, x: Tensor, y: Tensor, candidates: Tensor | None = None) -> Tensor:
        """The scores of what `embed_x` gave (N, L, U), for y (B, D): (B, N, L) or (B, K, L). N need not be B: candidates (B, K)
        are any of the N."""
        raise NotImplementedError


class DotProduct(Critic):
    """Critics whose score is the dot product of `embed_x` and `embed_y`."""

    dot_product = True

    def compare(self, x: Tensor, y: Tensor, candidates: Tensor | None = None) -> Tensor:
        return dot_scores(x, self.embed_y(y), candidates)


class Dot(DotProduct):
    r"""The dot product, :math:`T(x, y) = x \cdot y`: what remains of `EncodeAndDot` where x and y are embedded outside, once for
    several critics."""

    def __init__(self):
        super().__init__()
        self.embed_x = self.embed_y = nn.Identity()


class Cosine(DotProduct):
    r"""Cosine similarity over a temperature, :math:`T(x, y) = \frac{x \cdot y}{\|x\| \|y\|} / \tau` (CMC eq. 3).

    No parameters: what it compares must already live in one space. Contrast `EncodeAndDot`, which learns that space.

    >>> import torch
    >>> Cosine(temperature=0.1)(torch.eye(2)[:, None], torch.eye(2))[..., 0]
    tensor([[10.,  0.],
            [ 0., 10.]])
    """

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        self.temperature = temperature

    def embed_x(self, x: Tensor) -> Tensor:
        """Unit vectors, what a memory bank keeps."""
        return F.normalize(x.float(), dim=-1)

    def embed_y(self, y: Tensor) -> Tensor:
        """Vectors whose dot product with `embed_x` is the score."""
        return F.normalize(y.float(), dim=-1) / self.temperature

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


class Bilinear(Cosine):
    r"""A learned bilinear form between unit vectors, :math:`T(x, y) = \hat x^\top W \hat y / \tau`.

    It begins as `Cosine`: W = 1. The second of the five designs of Wu et al. 2020, appendix D.

    >>> import torch
    >>> x, y = torch.randn(8, 1, 16), torch.randn(8, 16)
    >>> torch.allclose(Bilinear(16)(x, y), Cosine()(x, y), atol=1e-5)
    True
    """

    def __init__(self, features: int, temperature: float = 0.07):
        super().__init__(temperature)
        self.weight = nn.Parameter(torch.empty(features, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.eye_(self.weight)

    def embed_y(self, y: Tensor) -> Tensor:
        """Vectors whose dot product with `embed_x` is the score."""
        with torch.autocast(y.device.type, enabled=False):
            return super().embed_y(y) @ self.weight.float().T


#: The activation after the shortcut, by the name that configurations use.
SHORTCUTS: dict[str, type[nn.Module]] = {"linear": nn.Identity, "relu": nn.ReLU}


class ResidualEmbedding(nn.Module):
    """One hidden layer beside a shortcut, into the units in which `EncodeAndDot` compares (Deep InfoMax, Tables 7 and 8).

    Args:
        in_features: size of what is embedded.
        units: size of the space (2048 in the paper).
        shortcut: "linear", as the text of A.1 says, or "relu", as Tables 7 and 8 print.
        layer_norm: the "block layer norm" of Table 8: over the units, at each location.

    Raises:
        UsageError: there is no such shortcut.
    """

    def __init__(self, in_features: int, units: int, shortcut: str = "linear", layer_norm: bool = False):
        super().__init__()
        self.hidden = nn.Linear(in_features, units)
        self.output = nn.Linear(units, units)
        self.shortcut = nn.Linear(in_features, units)
        self.shortcut_activation = choose("shortcut", shortcut, SHORTCUTS)()
        self.norm = nn.LayerNorm(units) if layer_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., units)."""
        return self.norm(self.output(F.relu(self.hidden(x))) + self.shortcut_activation(self.shortcut(x)))


class EncodeAndDot(DotProduct):
    r"""Encode-and-dot-product, :math:`T(x, y) = f(x) \cdot g(y)` (Deep InfoMax, Figure 5, Tables 7 and 8).

    f and g embed x and y in one space of many units. Each x and each y is embedded once, whatever the number of pairs, so all
    pairs of a batch cost one matmul; contrast `Concat`, which runs its network for every pair.

    >>> import torch
    >>> EncodeAndDot(128, 64, units=256)(torch.randn(8, 16, 128), torch.randn(8, 64)).shape
    torch.Size([8, 8, 16])
    """

    def __init__(self, x_features: int, y_features: int, units: int = 2048, shortcut: str = "linear"):
        super().__init__()
        self.embed_x = ResidualEmbedding(x_features, units, shortcut, layer_norm=True)
        self.embed_y = ResidualEmbedding(y_features, units, shortcut)


class Concat(Critic):
    r"""An MLP on the concatenation, :math:`T(x, y) = D([x, y])` (Deep InfoMax, eq. 9, Tables 5 and 6).

    On a flattened map (L = 1) it is the global discriminator, on every location the 1x1 convolutional discriminator of
    "concat-and-convolve". The first layer is split by W [x, y] = W_x x + W_y y, so that it runs once for each x and each y and
    not for each pair; the rest runs for every pair, and memory grows with pairs x units: give it few candidates on large maps.

    Args:
        x_features, y_features: C and D.
        units: of each hidden layer.
        hidden_layers: 2, as in Deep InfoMax; 1; or 0, a linear layer, which can compare nothing, for it is a function of x plus one
            of y. The last three of the designs of Wu et al. 2020 (appendix D) are 0, 1 and 2 with 128 units.

    >>> import torch
    >>> Concat(4096, 64)(torch.randn(8, 1, 4096), torch.randn(8, 64)).shape
    torch.Size([8, 8, 1])
    """

    def __init__(self, x_features: int, y_features: int, units: int = 512, hidden_layers: int = 2):
        super().__init__()
        first = units if hidden_layers else 1
        self.embed_x = nn.Linear(x_features, first)
        self.embed_y = nn.Linear(y_features, first, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(units, units) for _ in range(hidden_layers - 1))
        self.score = nn.Linear(units, 1) if hidden_layers else None

    def compare(self, x: Tensor, y: Tensor, candidates: Tensor | None = None) -> Tensor:
        y = self.embed_y(y)  # (B, U)
        x = x.unsqueeze(0) if candidates is None else x[candidates]  # (1, N, L, U) or (B, K, L, U)
        pairs = x + y[:, None, None]  # (B, N or K, L, U)
        if self.score is None:
            return pairs.float().squeeze(-1)
        for layer in self.hidden:
            pairs = layer(F.relu(pairs))
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(F.relu(pairs).float(), self.score.weight.float(), self.score.bias.float()).squeeze(-1)
