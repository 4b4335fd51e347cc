import math
import re

import pytest
import torch
from scipy import stats

from hf_infomax.models.bank import MemoryBank
from hf_infomax.models.bounds import infonce
from hf_infomax.models.critics import Concat, Cosine, EncodeAndDot
from hf_infomax.models.errors import UsageError
from hf_infomax.models.negatives import FromBank, InBatch, draw

IMAGES, LOCATIONS = 7, 3


def named_pairs(x, y, candidates=None):
    """A critic whose score says what it was asked: 10,000 y's image + 100 x's image + x's location."""
    images = torch.arange(len(y)) if candidates is None else candidates
    images = images.expand(len(y), -1)
    scores = 10_000 * torch.arange(len(y))[:, None, None] + 100 * images[..., None] + torch.arange(x.shape[1])
    return scores.double()


@pytest.fixture
def x():
    return torch.randn(IMAGES, LOCATIONS, 5)


@pytest.fixture
def y():
    return torch.randn(IMAGES, 4)


def check_pairs(positive, negative, num_negatives):
    """Every positive is its own image's; returns which images (B, num_negatives) serve each y."""
    assert positive.shape == (IMAGES, LOCATIONS)
    for i in range(IMAGES):
        assert positive[i].tolist() == [10_000 * i + 100 * i + location for location in range(LOCATIONS)]
    served = []
    for i, row in enumerate(negative[:, 0]):
        asked = [int(score) for score in row if score != -math.inf]
        assert {score // 10_000 for score in asked} == {i}
        images = {score % 10_000 // 100 for score in asked}
        assert i not in images
        assert sorted(asked) == sorted(10_000 * i + 100 * j + k for j in images for k in range(LOCATIONS))
        assert len(images) == num_negatives
        served.append(sorted(images))
    return served


def test_all_others_are_every_location_of_every_other_image(x, y):
    positive, negative = InBatch()(named_pairs, x, y)
    assert negative.shape == (IMAGES, 1, IMAGES * LOCATIONS)
    served = check_pairs(positive, negative, IMAGES - 1)
    assert served == [[j for j in range(IMAGES) if j != i] for i in range(IMAGES)]


@pytest.mark.parametrize("num_negatives", range(1, IMAGES))
def test_drawn_images_serve_equally_often_and_never_themselves(x, y, num_negatives):
    for _ in range(5):
        positive, negative = InBatch(num_negatives)(named_pairs, x, y)
        assert negative.shape == (IMAGES, 1, num_negatives * LOCATIONS)
        served = check_pairs(positive, negative, num_negatives)
        counts = torch.tensor(served).flatten().bincount(minlength=IMAGES)
        assert counts.tolist() == [num_negatives] * IMAGES


def test_draws_differ_from_call_to_call_and_reach_every_other_image(x, y):
    draws = {tuple(map(tuple, check_pairs(*InBatch(1)(named_pairs, x, y), 1))) for _ in range(100)}
    assert len(draws) == IMAGES - 1


@pytest.mark.parametrize("critic", [EncodeAndDot(5, 4, units=8), Concat(5, 4, units=8)])
def test_drawing_all_others_equals_masking_the_own_image(x, y, critic):
    masked, drawn = (infonce(*InBatch(k)(critic, x, y)) for k in (None, IMAGES - 1))
    torch.testing.assert_close(drawn, masked)
    gradients = [torch.autograd.grad(bound, list(critic.parameters())) for bound in (masked, drawn)]
    torch.testing.assert_close(*gradients)


def test_a_batch_of_one_has_no_negatives():
    for num_negatives in (None, 1):
        with pytest.raises(UsageError, match=r"^A batch of one image [^.]*\.$"):
            InBatch(num_negatives)(named_pairs, torch.randn(1, LOCATIONS, 5), torch.randn(1, 4))


@pytest.mark.parametrize("num_negatives", [0, -1, IMAGES, 100])
def test_a_number_that_the_batch_does_not_hold(x, y, num_negatives):
    with pytest.raises(UsageError) as raised:
        InBatch(num_negatives)(named_pairs, x, y)
    assert re.fullmatch(
        rf"num_negatives={num_negatives} [^.]*batch of {IMAGES}: choose 1 to 6[^.]*\.", str(raised.value)
    )


@pytest.mark.parametrize("shared", [False, True])
def test_samples_are_drawn_evenly_from_all_but_the_image_itself(shared):
    index = torch.tensor([0, 3, 9])
    generator = torch.Generator().manual_seed(0)
    drawn = draw(index, 30_000, 10, generator, shared)
    assert drawn.shape == ((30_000,) if shared else (3, 30_000))
    if shared:
        assert stats.chisquare(drawn.bincount(minlength=10)).pvalue > 1e-3
        return
    for own, row in zip(index.tolist(), drawn, strict=True):
        counts = row.bincount(minlength=10)
        assert counts[own] == 0
        assert stats.chisquare(counts[torch.arange(10) != own]).pvalue > 1e-3


@pytest.mark.parametrize("positive", ["bank", "batch"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_bank_answers_as_a_loop_over_its_rows(shared, positive):
    bank, critic = MemoryBank(12, 5), Cosine(0.2)
    index, x, y = torch.tensor([4, 7, 1]), torch.randn(3, 1, 5), torch.randn(3, 5)
    candidates = draw(index, 9, 12, torch.Generator().manual_seed(1), shared)
    scores, negative = FromBank(bank, index, candidates, positive)(critic, x, y)
    assert (scores.shape, negative.shape) == ((3, 1), (3, 1, 9))
    for i, own in enumerate(index.tolist()):
        other = bank.rows[own] if positive == "bank" else x[i, 0]
        assert scores[i].item() == pytest.approx(torch.cosine_similarity(y[i], other, dim=0).item() / 0.2, abs=1e-5)
        for k, sample in enumerate((candidates if shared else candidates[i]).tolist()):
            expected = torch.cosine_similarity(y[i], bank.rows[sample], dim=0).item() / 0.2
            assert negative[i, 0, k].item() == pytest.approx(-math.inf if sample == own else expected, abs=1e-5)


def test_rows_leave_the_others_out():
    x, y, rows = torch.randn(6, 2, 5), torch.randn(6, 5), torch.tensor([True, False, True, True, False, True])
    critic = EncodeAndDot(5, 5, units=4)
    expected = InBatch()(critic, x[rows], y[rows])
    for got, want in zip(InBatch()(critic, x, y, rows), expected, strict=True):
        assert torch.equal(got, want)
    bank, index = MemoryBank(30, 5), torch.arange(6)
    ask = FromBank(bank, index, draw(index, 8, 30, torch.Generator()))
    for got, whole in zip(ask(Cosine(), x[:, :1], y, rows), ask(Cosine(), x[:, :1], y), strict=True):
        assert torch.equal(got, whole[rows])
