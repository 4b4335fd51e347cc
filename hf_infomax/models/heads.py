"""Projection heads: between the representation y, which users receive, and the vectors that are compared."""

from collections.abc import Callable

from torch import Tensor, nn

from .errors import UsageError, choose


def _mlp(features: int, units: int, hidden: int | None) -> nn.Module:
    hidden = hidden or features
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, units))


#: (size of y, units that are compared, hidden units or None for as many as y has) -> a head, by the name of configurations.
HEADS: dict[str, Callable[[int, int, int | None], nn.Module]] = {
    "linear": lambda features, units, hidden: nn.Linear(features, units),
    "mlp": _mlp,
}


class JigsawHead(nn.Module):
    """PIRL's head of an image in pieces: each piece's representation is projected, all are concatenated and projected again
    (Misra and van der Maaten 2020, 3.2; the jigsaw branch of InfoMin, C.3).

    The pieces are taken in the order in which they come: in any other one the blocks of the concatenation change places, and the
    last layer answers otherwise, which training makes it unlearn.

    Args:
        kind: "linear" or "mlp", of the projection of a piece, shared by all; see `HEADS`.
        features: size of a piece's representation.
        units: of its projection, and of what is compared.
        pieces: of an image, 9 for a grid of 3x3.
        hidden: units of the hidden layer of "mlp"; None: `features`.

    Raises:
        UsageError: there is no such kind; or, when called, another number of pieces.

    >>> import torch
    >>> JigsawHead("mlp", features=64, units=16)(torch.randn(8, 9, 64)).shape
    torch.Size([8, 16])
    """

    def __init__(self, kind: str, features: int, units: int, pieces: int = 9, hidden: int | None = None):
        super().__init__()
        self.pieces = pieces
        self.piece = choose("head", kind, HEADS)(features, units, hidden)
        self.whole = nn.Linear(pieces * units, units)

    def forward(self, y: Tensor) -> Tensor:
        """Representations of the pieces (B, pieces, features) -> (B, units)."""
        if y.shape[1] != self.pieces:
            raise UsageError(
                f"jigsaw_values have {y.shape[1]} pieces of each image, and the head was made for {self.pieces}: "
                f"set model.jigsaw_pieces={y.shape[1]}, or cut a grid of as many."
            )
        return self.whole(self.piece(y).flatten(1))
