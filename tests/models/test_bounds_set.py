"""InfoNCE over a set of positives, Local Aggregation's objective: against a loop, and what it promises of its siblings."""

import math

import pytest
import torch

from hf_infomax.models.bounds import infonce, infonce_set


def anchors(positive, negative):
    """Each anchor's unmasked positives and negatives."""
    negative = negative.expand(*positive.shape[:-1], -1)
    rows = zip(positive.reshape(-1, positive.shape[-1]), negative.reshape(-1, negative.shape[-1]), strict=True)
    return [([p for p in ps if p != -math.inf], [n for n in ns if n != -math.inf]) for ps, ns in rows]


def naive(positive, negative, separately):
    total, several = 0.0, anchors(positive, negative)
    for ps, ns in several:
        mean = sum(score.exp() for score in [*ps, *ns]) / (len(ps) + len(ns))
        top = sum(ps) / len(ps) if separately else sum(p.exp() for p in ps).log()
        total = total + top - mean.log()
    return total / len(several)


def ragged(scores, most):
    """Row i masks some of its last candidates, no more than `most` and none in the first row."""
    rows = torch.arange(scores[..., 0].numel()).reshape(scores.shape[:-1]) % (most + 1)
    return scores.masked_fill(torch.arange(scores.shape[-1]) >= scores.shape[-1] - rows[..., None], -math.inf)


@pytest.mark.parametrize("separately", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("positive_shape", "negative_shape"), [((5, 1), (5, 7)), ((5, 4), (5, 7)), ((4, 3, 6), (4, 1, 5))]
)
def test_value_and_gradients_equal_the_naive_loop(separately, masked, positive_shape, negative_shape):
    positive, negative = 2 * torch.randn(positive_shape), 2 * torch.randn(negative_shape)
    if masked:  # the own positive is always there, and so is a negative
        positive, negative = ragged(positive, positive_shape[-1] - 1), ragged(negative, negative_shape[-1] - 1)
    got = [scores.clone().requires_grad_() for scores in (positive, negative)]
    wanted = [scores.double().requires_grad_() for scores in (positive, negative)]
    value, expected = infonce_set(*got, separately), naive(*wanted, separately)
    assert value.shape == ()
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)
    value.backward()
    expected.backward()
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-6)
        assert not ours.grad[ours.isneginf()].any()


@pytest.mark.parametrize("separately", [False, True])
def test_with_one_positive_it_is_infonce(separately):
    """Lemma 5.2: LA whose only close neighbour is the image itself is BALL."""
    positive, negative = torch.randn(6, 1), ragged(torch.randn(6, 9), 5)
    expected = infonce(positive.squeeze(1), negative)
    torch.testing.assert_close(infonce_set(positive, negative, separately), expected)
    nobody = torch.full((6, 4), -math.inf)  # as `FromBank` gives them where no candidate is close
    torch.testing.assert_close(infonce_set(torch.cat([positive, nobody], 1), negative, separately), expected)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_on_the_same_scores_a_set_of_positives_only_adds(scale):
    """The opposite of what Lemma 5.3 states, for each and every image: p(C) >= p(i)."""
    for own, others, negative in zip(
        scale * torch.randn(200, 1), scale * torch.randn(200, 3), scale * torch.randn(200, 8), strict=True
    ):
        la = infonce_set(torch.cat([own, others])[None], negative[None])
        alone = infonce_set(own[None], torch.cat([others, negative])[None])  # LA_0: the same background
        assert la >= alone - 1e-5


def test_the_mean_over_positives_is_below_where_the_own_image_is_the_best():
    """Where Lemma 5.3 does hold; and it needs the condition."""
    own, others, negative = torch.randn(200, 1), torch.randn(200, 3), torch.randn(200, 8)
    best = torch.maximum(own, others.amax(dim=1, keepdim=True))
    worst = torch.minimum(own, others.amin(dim=1, keepdim=True)) - 0.1
    for first, below in ((best, True), (worst, False)):
        for one, rest, n in zip(first, others, negative, strict=True):
            several = infonce_set(torch.cat([one, rest])[None], n[None], separately=True)
            alone = infonce_set(one[None], torch.cat([rest, n])[None])
            assert (several <= alone + 1e-5) if below else (several > alone)


def test_a_perfect_and_a_blind_critic():
    negative = torch.full((5, 6), -50.0)
    assert infonce_set(torch.full((5, 3), 50.0), negative).item() == pytest.approx(math.log(9), abs=1e-5)
    assert infonce_set(torch.full((5, 3), 50.0), negative, True).item() == pytest.approx(math.log(3), abs=1e-5)
    flat = torch.zeros(5, 6)  # log P of knowing nothing: that is why the mean is what is reported
    assert infonce_set(torch.zeros(5, 3), flat).item() == pytest.approx(math.log(3), abs=1e-6)
    assert infonce_set(torch.zeros(5, 3), flat, separately=True).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("separately", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_masked_scores_leave_no_nan_in_the_gradients(separately, scale):
    positive, negative = (scale * torch.randn(4, count) for count in (3, 5))
    positive.requires_grad_()
    negative.requires_grad_()
    nobody, masked = torch.zeros(4, 3, dtype=torch.bool), torch.zeros(4, 5, dtype=torch.bool)
    nobody[0, 1:] = nobody[1, 2] = True
    masked[1] = masked[2, 1:] = True  # one anchor has no negatives at all
    value = infonce_set(positive.masked_fill(nobody, -math.inf), negative.masked_fill(masked, -math.inf), separately)
    value.backward()
    assert value.isfinite()
    for scores, left_out in ((positive, nobody), (negative, masked)):
        assert scores.grad.isfinite().all()
        assert not scores.grad[left_out].any()


@pytest.mark.parametrize("separately", [False, True])
def test_bfloat16_scores_are_reckoned_in_float32(separately):
    positive, negative = (4 * torch.randn(32, 3)).bfloat16(), (4 * torch.randn(32, 64)).bfloat16()
    value = infonce_set(positive, negative, separately)
    assert value.dtype == torch.float32
    assert torch.equal(value, infonce_set(positive.float(), negative.float(), separately))
