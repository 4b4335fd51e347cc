import pytest
import torch
from torch import nn

from hf_infomax.models.errors import UsageError
from hf_infomax.models.heads import HEADS, JigsawHead


def test_the_heads_have_the_layers_that_are_asked_for():
    assert HEADS["linear"](12, 5, None).weight.shape == (5, 12)
    first, _, last = HEADS["mlp"](12, 5, None)
    assert (first.weight.shape, last.weight.shape) == ((12, 12), (5, 12))
    first, _, last = HEADS["mlp"](12, 5, 7)
    assert (first.weight.shape, last.weight.shape) == ((7, 12), (5, 7))


@pytest.mark.parametrize("kind", HEADS)
def test_the_jigsaw_head_is_a_head_on_each_piece_and_a_layer_on_all(kind):
    head, y = JigsawHead(kind, features=6, units=4, pieces=9), torch.randn(3, 9, 6)
    answer = head(y)
    assert answer.shape == (3, 4)
    weight = head.whole.weight.unflatten(1, (9, 4))  # (units, pieces, units)
    naive = sum(head.piece(y[:, place]) @ weight[:, place].T for place in range(9)) + head.whole.bias
    torch.testing.assert_close(answer, naive)


def test_pieces_in_another_order_are_blocks_in_another_order():
    head, y, order = JigsawHead("mlp", features=6, units=4, pieces=9), torch.randn(3, 9, 6), torch.randperm(9)
    moved = JigsawHead("mlp", features=6, units=4, pieces=9)
    moved.piece = head.piece
    moved.whole.bias = head.whole.bias
    moved.whole.weight = nn.Parameter(head.whole.weight.unflatten(1, (9, 4))[:, order].flatten(1))
    torch.testing.assert_close(moved(y[:, order]), head(y))
    assert not head(y[:, order]).allclose(head(y), atol=1e-3)  # the places matter


def test_another_number_of_pieces_is_one_sentence():
    with pytest.raises(UsageError, match="have 4 pieces of each image, and the head was made for 9"):
        JigsawHead("linear", 6, 4)(torch.randn(2, 4, 6))
