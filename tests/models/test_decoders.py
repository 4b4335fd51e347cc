import pytest
import torch
from torch.nn import functional as F

from hf_infomax import UsageError
from hf_infomax.models.decoders import TARGETS, Decoder, quantize


@pytest.mark.parametrize(
    ("shape", "side", "sides"),
    [
        ((128,), 32, [4, 8, 16, 32]),
        ((128,), 224, [7, 14, 28, 56, 112, 224]),
        ((128,), 50, [7, 14, 28, 50]),
        ((128,), 1, [1]),
        ((16, 7, 7), 64, [7, 14, 28, 56, 64]),
        ((16, 8, 8), 8, [8]),
        ((16, 16, 16), 4, [4]),
        ((16, 4, 6), 8, [6, 8]),
    ],
)
def test_a_decoder_doubles_the_side_until_it_is_there(shape, side, sides):
    decoder = Decoder(shape, 5, side, channels=[8, 4])
    layer = torch.rand(2, *shape)
    seen = [decoder.entry(layer)]
    for block in decoder.blocks:
        seen.append(block(seen[-1]))
    assert [tuple(map_.shape[1:]) for map_ in seen] == [(4 if i else 8, n, n) for i, n in enumerate(sides)]
    assert decoder(layer).shape == (2, 5, side, side)


def test_a_map_that_is_too_large_is_averaged_down():
    decoder = Decoder((3, 8, 8), 2, 4, channels=[5]).eval()
    layer = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(
        decoder(layer), decoder(F.avg_pool2d(layer, 2).repeat_interleave(2, 2).repeat_interleave(2, 3))
    )


@pytest.mark.parametrize("channels", [[], [8, 0]])
def test_a_decoder_has_channels(channels):
    with pytest.raises(UsageError, match=r"^decoder_channels=\[.*\] must name one positive number or more\.$"):
        Decoder((16,), 2, 8, channels)


def test_what_is_outside_the_range_falls_into_the_outermost_bins():
    view = torch.tensor([-7.0, -1.0, -0.51, -0.5, 0.0, 0.99, 1.0, 7.0]).view(1, 1, 1, -1)
    assert quantize(view, 4).flatten().tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert quantize(torch.cat([view, -view], 1), 4).flatten().tolist() == [3, 3, 3, 7, 10, 12, 12, 12]


@pytest.mark.parametrize(
    ("name", "channels", "labels", "outputs"),
    [
        ("l1", 3, False, 3),
        ("l2", 2, False, 2),
        ("l2", 4, True, 4),
        ("quantized", 1, False, 6),
        ("quantized", 2, False, 36),
        ("quantized", 4, True, 4),
    ],
)
def test_a_target_says_how_many_outputs_it_needs_and_errs_pixel_by_pixel(name, channels, labels, outputs):
    target = TARGETS[name]("v", channels, labels, 6)
    assert target.outputs == outputs
    view = torch.rand(2, channels, 3, 5)
    errors = target.errors(torch.randn(2, outputs, 3, 5), view)
    assert errors.shape == (2, 3, 5)
    assert (errors >= 0).all()


def test_perfect_predictions_cost_nothing():
    view = torch.rand(2, 2, 3, 3) * 2 - 1
    for name in ("l1", "l2"):
        assert not TARGETS[name]("v", 2, False, 0).errors(view, view).any()
    certain = 100 * F.one_hot(quantize(view, 6), 36).movedim(-1, 1).float()
    assert TARGETS["quantized"]("v", 2, False, 6).errors(certain, view).max() < 1e-6
