import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_infomax.models.bounds import BOUNDS, IN_NATS, donsker_varadhan, infonce, jensen_shannon
from hf_infomax.models.critics import Critic, EncodeAndDot
from hf_infomax.models.negatives import InBatch


def anchors(positive, negative):
    """Each positive with the list of its unmasked negatives, one scalar tensor at a time."""
    negative = negative.expand(*positive.shape, negative.shape[-1])
    rows = zip(positive.reshape(-1), negative.reshape(-1, negative.shape[-1]), strict=True)
    return [(p, [n for n in row if n != -math.inf]) for p, row in rows]


def naive_infonce(positive, negative):
    total = 0.0
    for p, row in anchors(positive, negative):
        total = total + p - ((p.exp() + sum(n.exp() for n in row)) / (len(row) + 1)).log()
    return total / positive.numel()


def naive_donsker_varadhan(positive, negative):
    joint = sum(p for p, _ in anchors(positive, negative)) / positive.numel()
    marginal = [n.exp() for _, row in anchors(positive, negative) for n in row]
    return joint - (sum(marginal) / len(marginal)).log()


def naive_jensen_shannon(positive, negative):
    joint = sum(-(1 + (-p).exp()).log() for p, _ in anchors(positive, negative)) / positive.numel()
    marginal = [(1 + n.exp()).log() for _, row in anchors(positive, negative) for n in row]
    return joint - sum(marginal) / len(marginal)


NAIVE = {"infonce": naive_infonce, "dv": naive_donsker_varadhan, "jsd": naive_jensen_shannon}

every_bound = pytest.mark.parametrize("name", BOUNDS)


def mask_nothing(negative):
    return torch.zeros_like(negative, dtype=torch.bool)


def mask_ragged(negative):
    """Row i masks i of its candidates, so the rows count differently."""
    rows = torch.arange(negative[..., 0].numel()).reshape(negative.shape[:-1])
    return torch.arange(negative.shape[-1]) < rows[..., None]


@every_bound
@pytest.mark.parametrize("mask", [mask_nothing, mask_ragged])
@pytest.mark.parametrize(
    ("positive_shape", "negative_shape"),
    [((5,), (5, 7)), ((4, 3), (4, 1, 6)), ((4, 3), (4, 3, 13)), ((4, 3), (1, 1, 4))],
)
def test_value_and_gradients_equal_the_naive_loop(name, mask, positive_shape, negative_shape):
    positive = (2 * torch.randn(positive_shape)).requires_grad_()
    negative = 2 * torch.randn(negative_shape)
    masked = mask(negative)
    negative = negative.masked_fill(masked, -math.inf).requires_grad_()

    value = BOUNDS[name](positive, negative)
    value.backward()

    positive_64 = positive.detach().double().requires_grad_()
    negative_64 = negative.detach().double().requires_grad_()
    expected = NAIVE[name](positive_64, negative_64)
    expected.backward()

    assert value.shape == ()
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(positive.grad.double(), positive_64.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(negative.grad.double(), negative_64.grad, rtol=1e-4, atol=1e-6)
    assert not negative.grad[masked].any()


@every_bound
def test_masking_a_candidate_equals_leaving_it_out(name):
    positive, negative = torch.randn(6), torch.randn(6, 9)
    masked = negative.clone()
    masked[:, ::2] = -math.inf
    torch.testing.assert_close(BOUNDS[name](positive, masked), BOUNDS[name](positive, negative[:, 1::2]))


@pytest.mark.parametrize(("name", "blind"), [("infonce", 0.0), ("dv", 0.0), ("jsd", -2 * math.log(2))])
def test_a_blind_critic(name, blind):
    scores = torch.full((6,), 0.7 if name != "jsd" else 0.0)
    negative = torch.cat([scores[:, None].expand(6, 8), torch.full((6, 3), -math.inf)], dim=1)
    assert BOUNDS[name](scores, negative).item() == pytest.approx(blind, abs=1e-6)


@pytest.mark.parametrize(("name", "perfect"), [("infonce", math.log(9)), ("dv", 100.0), ("jsd", 0.0)])
def test_a_perfect_critic(name, perfect):
    negative = torch.full((6, 11), -50.0)
    negative[:, 8:] = -math.inf
    assert BOUNDS[name](torch.full((6,), 50.0), negative).item() == pytest.approx(perfect, abs=1e-5)


@every_bound
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_scores_stay_finite(name, sign):
    positive = (sign * torch.tensor([1e4, 1e4, -1e4])).requires_grad_()
    negative = sign * torch.tensor([[-1e4, 1e4], [-1e4, 0.0], [1e4, 1e4]])
    negative[1, 1] = -math.inf
    negative.requires_grad_()
    value = BOUNDS[name](positive, negative)
    value.backward()
    assert value.isfinite()
    assert positive.grad.isfinite().all()
    assert negative.grad.isfinite().all()


@every_bound
def test_bfloat16_scores_are_reckoned_in_float32(name):
    positive, negative = (4 * torch.randn(32)).bfloat16(), (4 * torch.randn(32, 64)).bfloat16()
    value = BOUNDS[name](positive, negative)
    assert value.dtype == torch.float32
    assert torch.equal(value, BOUNDS[name](positive.float(), negative.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(BOUNDS[name](positive, negative), value)


def test_infonce_without_reduction_is_the_summand_of_each_positive():
    positive, negative = torch.randn(3, 4), torch.randn(3, 1, 5)
    each = infonce(positive, negative, reduction="none")
    assert each.shape == (3, 4)
    for b in range(3):
        for location in range(4):
            alone = infonce(positive[b, location], negative[b, 0])
            assert each[b, location].item() == pytest.approx(alone.item(), abs=1e-6)
    torch.testing.assert_close(each.mean(), infonce(positive, negative))


def test_a_row_without_negatives_says_nothing():
    positive, negative = torch.randn(4), torch.randn(4, 5)
    negative[2] = -math.inf
    estimates = infonce(positive, negative, reduction="none")
    assert estimates[2] == 0
    assert estimates.isfinite().all()
    for name in BOUNDS:
        assert BOUNDS[name](positive, negative).item() == pytest.approx(
            NAIVE[name](positive, negative).item(), abs=1e-5
        )


def test_infonce_is_a_cross_entropy_shifted_to_nats():
    positive, negative = torch.randn(8), torch.randn(8, 15)
    logits = torch.cat([positive[:, None], negative], dim=1)
    cross_entropy = F.cross_entropy(logits, torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(infonce(positive, negative), math.log(16) - cross_entropy)


def test_infonce_ignores_a_constant_of_the_anchor_and_dv_one_of_all():
    positive, negative, shift = torch.randn(8), torch.randn(8, 15), 3 * torch.randn(8)
    torch.testing.assert_close(infonce(positive + shift, negative + shift[:, None]), infonce(positive, negative))
    torch.testing.assert_close(donsker_varadhan(positive + 3, negative + 3), donsker_varadhan(positive, negative))
    assert (jensen_shannon(positive + 3, negative + 3) - jensen_shannon(positive, negative)).abs() > 0.1


def test_mine_moving_average_changes_the_gradient_and_not_the_value():
    positive = torch.randn(6, requires_grad=True)
    negative = torch.randn(6, 5)
    negative[2, 3:] = -math.inf
    negative.requires_grad_()
    average = torch.tensor(2.5)
    value = donsker_varadhan(positive, negative, moving_average=average)
    torch.testing.assert_close(value, donsker_varadhan(positive, negative))
    value.backward()
    torch.testing.assert_close(positive.grad, torch.full((6,), 1 / 6))
    torch.testing.assert_close(negative.grad, -negative.detach().exp() / (28 * average))  # 28 unmasked; e^-inf = 0

    of_this_batch = negative.detach().exp().sum() / 28
    (mine,) = torch.autograd.grad(donsker_varadhan(positive, negative, of_this_batch), negative)
    (plain,) = torch.autograd.grad(donsker_varadhan(positive, negative), negative)
    torch.testing.assert_close(mine, plain)


def test_names():
    assert set(BOUNDS) == {"infonce", "dv", "jsd"}
    assert set(BOUNDS) - IN_NATS == {"jsd"}


# Correlated Gaussians: x, y of d dimensions with correlation rho in each have I(X; Y) = -d/2 log(1 - rho^2).


def information(rho, dims):
    return -0.5 * dims * math.log(1 - rho**2)


def gaussians(samples, rho, dims):
    x = torch.randn(samples, dims)
    return x, rho * x + math.sqrt(1 - rho**2) * torch.randn(samples, dims)


def log_density_ratio(x, y, rho):
    """log p(x, y) / (p(x) p(y)), the optimal critic, summed over the last dimension."""
    quadratic = (rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * (1 - rho**2))
    return (-0.5 * math.log(1 - rho**2) - quadratic).sum(-1)


def optimal_scores(samples, rho, dims, num_negatives=None):
    x, y = gaussians(samples, rho, dims)

    class Optimal(Critic):
        embed_x = nn.Identity()

        def compare(self, x, y, candidates=None):
            x = x.unsqueeze(0) if candidates is None else x[candidates]
            return log_density_ratio(x, y[:, None, None], rho)

    return InBatch(num_negatives)(Optimal(), x.unsqueeze(1), y)


@pytest.mark.parametrize(("rho", "dims"), [(0.3, 4), (0.6, 2), (0.7, 4)])
def test_the_optimal_critic_reaches_the_known_information(rho, dims):
    truth = information(rho, dims)
    positive, negative = optimal_scores(2_000, rho, dims)
    error = 4 * positive.std().item() / math.sqrt(2_000)  # of the sample's own mean log ratio
    assert infonce(positive, negative).item() == pytest.approx(truth, abs=error)
    assert donsker_varadhan(positive, negative).item() == pytest.approx(truth, abs=error)


@pytest.mark.parametrize("num_negatives", [1, 3, 15])
def test_infonce_of_the_optimal_critic_is_capped_by_its_candidates(num_negatives):
    truth = information(0.999, 4)  # 12.4 nats
    estimate = infonce(*optimal_scores(1_000, 0.999, 4, num_negatives)).item()
    ceiling = math.log(num_negatives + 1)
    assert truth > 4 * ceiling
    assert 0.9 * ceiling < estimate <= ceiling + 1e-5


def test_infonce_of_the_optimal_critic_grows_with_candidates_towards_the_information():
    truth = information(0.8, 4)  # 2.04 nats
    estimates = [infonce(*optimal_scores(1_500, 0.8, 4, k)).item() for k in (1, 7, 63, 511)]
    assert estimates == sorted(estimates)
    assert estimates[0] < math.log(2)
    assert estimates[1] < truth - 0.3
    assert estimates[-1] == pytest.approx(truth, abs=0.15)


def jensen_shannon_by_quadrature(rho):
    """E_J[log J/(J+M)] + E_M[log M/(J+M)] of densities J and M, on a grid; the optimum of eq. 4 over all critics."""
    grid = torch.linspace(-7, 7, 701, dtype=torch.float64)
    x, y = torch.meshgrid(grid, grid, indexing="ij")
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal
    points = torch.stack([x, y], dim=-1)
    joint = normal(torch.zeros(2, dtype=torch.float64), covariance).log_prob(points)
    marginal = normal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)).log_prob(points)
    mixture = torch.logaddexp(joint, marginal)
    integrand = joint.exp() * (joint - mixture) + marginal.exp() * (marginal - mixture)
    return (integrand.sum() * (grid[1] - grid[0]) ** 2).item()


def test_jensen_shannon_of_the_optimal_critic_is_the_divergence_and_grows_with_the_information():
    rhos = (0.1, 0.4, 0.7, 0.95)
    estimates = [jensen_shannon(*optimal_scores(2_000, rho, 1)).item() for rho in rhos]
    assert estimates == pytest.approx([jensen_shannon_by_quadrature(rho) for rho in rhos], abs=0.03)
    assert estimates == sorted(estimates)
    assert -2 * math.log(2) - 0.03 < estimates[0] < estimates[-1] < 0


@pytest.mark.parametrize("name", sorted(IN_NATS))
def test_a_trained_critic_ends_near_one_nat(name):
    dims, rho = 2, math.sqrt(1 - math.exp(-1))
    assert information(rho, dims) == pytest.approx(1.0)
    critic, negatives = EncodeAndDot(dims, dims, units=32), InBatch()
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(400):
        x, y = gaussians(256, rho, dims)
        loss = -BOUNDS[name](*negatives(critic, x.unsqueeze(1), y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        x, y = gaussians(2_000, rho, dims)
        assert BOUNDS[name](*negatives(critic, x.unsqueeze(1), y)).item() == pytest.approx(1.0, abs=0.15)
