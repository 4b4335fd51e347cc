import copy
import math

import pytest
import torch
from torch import nn

from hf_infomax.models.priors import PRIORS, PriorMatching

SAMPLES, DIMS = 20_000, 5


def sample(name):
    return PRIORS[name](torch.Size((SAMPLES, DIMS)), torch.device("cpu"))


def is_uniform(values):
    """Kolmogorov-Smirnov distance to the uniform distribution on [0, 1], at a level of about 1e-5."""
    steps = (torch.arange(len(values)) + 0.5) / len(values)
    return (values.sort().values - steps).abs().max() < 2.5 / math.sqrt(len(values))


def test_uniform_prior():
    v = sample("uniform")
    assert v.min() >= 0
    assert v.max() <= 1
    assert all(is_uniform(v[:, i]) for i in range(DIMS))
    torch.testing.assert_close(v.T.cov(), torch.eye(DIMS) / 12, rtol=0, atol=0.005)


def test_gaussian_prior():
    v = sample("gaussian")
    torch.testing.assert_close(v.mean(0), torch.zeros(DIMS), rtol=0, atol=0.04)
    torch.testing.assert_close(v.T.cov(), torch.eye(DIMS), rtol=0, atol=0.05)
    assert all(is_uniform(torch.special.ndtr(v[:, i])) for i in range(DIMS))


def test_sphere_prior():
    v = sample("sphere")
    torch.testing.assert_close(v.norm(dim=1), torch.ones(SAMPLES))
    torch.testing.assert_close(v.mean(0), torch.zeros(DIMS), rtol=0, atol=0.02)
    torch.testing.assert_close(v.T.cov(), torch.eye(DIMS) / DIMS, rtol=0, atol=0.01)


def test_ball_prior():
    v = sample("ball")
    radius = v.norm(dim=1)
    assert radius.max() <= 1 + 1e-6
    assert is_uniform(radius.pow(DIMS))  # the volume within a radius
    assert radius.mean().item() == pytest.approx(DIMS / (DIMS + 1), abs=0.005)
    torch.testing.assert_close(v.mean(0), torch.zeros(DIMS), rtol=0, atol=0.02)
    torch.testing.assert_close(v.T.cov(), torch.eye(DIMS) / (DIMS + 2), rtol=0, atol=0.01)


BATCH, FEATURES = 4, 3


def objectives(matching, y, real):
    """(discriminator's, encoder's) terms of eq. 7 by a loop over samples, in float64, as functions of nothing else."""
    y = torch.sigmoid(y) if matching.squash is torch.sigmoid else y
    discriminator, encoder = 0.0, 0.0
    for v, u in zip(real, y, strict=True):
        d_real, d_y = (1 / (1 + torch.exp(-matching.discriminator(z))) for z in (v, u))
        discriminator -= (d_real.log() + (1 - d_y).log()).item()
        encoder += (1 - d_y).log().item() if matching.saturating else -d_y.log().item()
    return discriminator / len(y), encoder / len(y)


def finite_difference(function, tensor, step=1e-5):
    gradient = torch.zeros_like(tensor)
    for index in range(tensor.numel()):
        values = []
        for sign in (1, -1):
            tensor.data.view(-1)[index] += sign * step
            values.append(function())
            tensor.data.view(-1)[index] -= sign * step
        gradient.view(-1)[index] = (values[0] - values[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize("saturating", [False, True])
@pytest.mark.parametrize("prior", PRIORS)
def test_each_player_follows_its_own_term_in_one_backward(prior, saturating):
    matching = PriorMatching(FEATURES, prior, units=(4,), saturating=saturating)
    y = (2 * torch.randn(BATCH, FEATURES)).requires_grad_()
    torch.manual_seed(1)
    terms = matching(y)
    (terms["prior_discriminator"] + terms["prior_encoder"]).backward()

    torch.manual_seed(1)
    real = PRIORS[prior](y.shape, y.device).double()
    exact, y_64 = copy.deepcopy(matching).double().requires_grad_(False), y.detach().double()
    values = objectives(exact, y_64, real)
    assert terms["prior_discriminator"].item() == pytest.approx(values[0], abs=1e-5)
    assert terms["prior_encoder"].item() == pytest.approx(values[1], abs=1e-5)

    torch.testing.assert_close(
        y.grad.double(), finite_difference(lambda: objectives(exact, y_64, real)[1], y_64), rtol=1e-3, atol=1e-6
    )
    weights = zip(matching.discriminator.parameters(), exact.discriminator.parameters(), strict=True)
    for weight, weight_64 in weights:
        expected = finite_difference(lambda: objectives(exact, y_64, real)[0], weight_64)
        torch.testing.assert_close(weight.grad.double(), expected, rtol=1e-3, atol=1e-6)


def test_no_gradient_leaks_to_the_other_player():
    matching, y = PriorMatching(FEATURES, units=(4,)), torch.randn(BATCH, FEATURES, requires_grad=True)
    terms = matching(y)
    terms["prior_discriminator"].backward(retain_graph=True)
    assert y.grad is None
    assert all(p.grad.abs().sum() > 0 for p in matching.parameters())
    matching.zero_grad()
    terms["prior_encoder"].backward()
    assert y.grad.abs().sum() > 0
    assert all(p.grad is None for p in matching.parameters())


def test_the_saturating_term_gives_no_gradient_where_the_discriminator_is_sure():
    gradients = {}
    for saturating in (False, True):
        matching = PriorMatching(FEATURES, "gaussian", units=(), saturating=saturating)
        with torch.no_grad():
            matching.discriminator[0].bias.fill_(-30.0)
        y = torch.zeros(BATCH, FEATURES, requires_grad=True)
        matching(y)["prior_encoder"].backward()
        gradients[saturating] = y.grad.norm().item()
    assert gradients[True] < 1e-10 < 1e-3 < gradients[False]


def test_terms_are_float32_under_autocast_and_reach_extreme_representations():
    matching = PriorMatching(FEATURES, units=(4,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = matching(1e4 * torch.randn(BATCH, FEATURES).bfloat16())
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())


def test_hidden_units_are_those_of_table_9():
    layers = [module for module in PriorMatching(64).modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(64, 1000), (1000, 200), (200, 1)]


def test_a_min_max_moves_a_shifted_gaussian_to_the_prior():
    matching = PriorMatching(2, "gaussian", units=(32,))
    shift = nn.Parameter(torch.tensor([2.0, -2.0]))
    log_scale = nn.Parameter(torch.tensor([-1.0, -1.0]))
    optimizer = torch.optim.Adam(
        [{"params": [shift, log_scale], "lr": 1e-2}, {"params": matching.parameters(), "lr": 1e-2}], betas=(0.5, 0.9)
    )
    path = []
    for _ in range(600):
        terms = matching(shift + log_scale.exp() * torch.randn(256, 2))
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        path.append(torch.cat([shift, log_scale]).detach().clone())
    end = torch.stack(path[-200:]).mean(0)  # a min-max circles round its solution
    torch.testing.assert_close(end, torch.zeros(4), rtol=0, atol=0.35)
