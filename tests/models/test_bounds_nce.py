"""Noise-contrastive estimation against a loop, and against the distribution that it must find."""

import math

import pytest
import torch

from hf_infomax.models.bounds import log_partition, nce


def naive_nce(positive, negative, log_z, num_data):
    """Eq. 10 and 11, one probability at a time."""
    negative = negative.expand(*positive.shape, negative.shape[-1])
    total = 0.0
    for p, row in zip(positive.reshape(-1), negative.reshape(-1, negative.shape[-1]), strict=True):
        noise = [n for n in row if n != -math.inf]
        ratio = len(noise) / num_data

        def of_data(score, ratio=ratio):
            model = (score - log_z).exp()
            return model / (model + ratio)

        total = total + of_data(p).log() + sum((1 - of_data(n)).log() for n in noise)
    return total / positive.numel()


@pytest.mark.parametrize("log_z", [0.0, 3.5])
@pytest.mark.parametrize("masked", [0, 3])
@pytest.mark.parametrize(("positive_shape", "negative_shape"), [((5,), (5, 7)), ((4, 3), (4, 1, 6))])
def test_value_and_gradients_equal_the_naive_loop(positive_shape, negative_shape, masked, log_z):
    positive = (2 * torch.randn(positive_shape)).requires_grad_()
    negative = 2 * torch.randn(negative_shape)
    negative[..., :masked] = -torch.inf
    negative.requires_grad_()
    value, expected = nce(positive, negative, log_z, 50), naive_nce(positive.double(), negative.double(), log_z, 50)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(value, (positive, negative))
    wanted = torch.autograd.grad(expected, (positive, negative))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs.nan_to_num(), rtol=1e-4, atol=1e-6)
    assert found[1].isfinite().all()


@pytest.mark.parametrize("log_z", [0.0, 2.0])
def test_the_true_distribution_is_its_maximum(log_z):
    """Six data; the positive is data v in counts[v] of twelve cases, and every datum serves once as noise."""
    counts = torch.tensor([1, 2, 4, 1, 3, 1])
    truth = (counts / 12).log() + log_z  # e^score / Z = p
    data = torch.arange(6).repeat_interleave(counts)

    def objective(scores):
        return nce(scores[data], scores.expand(12, 6), log_z, num_data=6)

    scores = truth.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(scores), scores)
    torch.testing.assert_close(gradient, torch.zeros(6), atol=1e-6, rtol=0)
    for _ in range(20):
        assert objective(truth + 0.3 * torch.randn(6)) < objective(truth)


def test_the_noise_is_summed_and_not_averaged():
    blind = nce(torch.zeros(3), torch.zeros(3, 9), log_z=math.log(100), num_data=100)  # e^score / Z = 1 / N
    assert blind.item() == pytest.approx(math.log(1 / 10) + 9 * math.log(9 / 10), abs=1e-5)


def test_log_partition_of_all_the_data_is_exact_and_without_gradient():
    scores = torch.randn(20, requires_grad=True)
    found = log_partition(scores.expand(4, 20), num_data=20)
    torch.testing.assert_close(found, scores.detach().logsumexp(0))
    assert not found.requires_grad
    masked = torch.cat([scores, torch.full((5,), -torch.inf)])
    torch.testing.assert_close(log_partition(masked.expand(4, 25), num_data=20), found)


def test_scores_of_bank_size_stay_finite():
    scores = torch.tensor([1 / 0.07, -1 / 0.07])  # cosines of 1 and -1 at the papers' temperature
    assert nce(scores[:1], scores[1:].expand(1, 16_384), 40.0, 1_281_167).isfinite()
    assert nce(scores[1:], scores[:1].expand(1, 16_384), -40.0, 1_281_167).isfinite()
