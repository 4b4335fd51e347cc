import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_infomax import UsageError
from hf_infomax.models.critics import Concat, Cosine, Dot, EncodeAndDot, ResidualEmbedding, dot_scores

IMAGES, LOCATIONS, X, Y = 5, 6, 7, 4


@pytest.fixture
def x():
    return torch.randn(IMAGES, LOCATIONS, X)


@pytest.fixture
def y():
    return torch.randn(IMAGES, Y)


@pytest.fixture
def candidates():
    return torch.tensor([[1, 0, 1], [4, 2, 0], [2, 2, 2], [0, 1, 2], [3, 4, 0]])  # with repetitions, with itself


CRITICS = {
    "dot": Dot,
    "cosine": lambda: Cosine(0.07),
    "encode_and_dot": lambda: EncodeAndDot(X, Y, units=12),
    "encode_and_dot_relu": lambda: EncodeAndDot(X, Y, units=12, shortcut="relu"),
    "concat": lambda: Concat(X, Y, units=12),
}


@pytest.fixture(params=CRITICS)
def critic(request):
    return CRITICS[request.param]()


@pytest.fixture
def fitting_y(critic, y):
    return torch.randn(IMAGES, X) if isinstance(critic, Cosine | Dot) else y


def test_scores_of_all_pairs_have_rows_of_y_and_columns_of_x(critic, x, fitting_y):
    scores = critic(x, fitting_y)
    assert scores.shape == (IMAGES, IMAGES, LOCATIONS)
    changed = x.clone()
    changed[3, 2] = torch.randn(X)
    differs = (critic(changed, fitting_y) - scores).abs() > 1e-6
    assert differs[:, 3, 2].all()
    assert differs.sum() == IMAGES


def test_candidates_index_the_scores_of_all_pairs(critic, x, fitting_y, candidates):
    everything, some = critic(x, fitting_y), critic(x, fitting_y, candidates)
    assert some.shape == (IMAGES, 3, LOCATIONS)
    for row in range(IMAGES):
        for k in range(3):
            torch.testing.assert_close(some[row, k], everything[row, candidates[row, k]])


def test_what_is_embedded_is_compared_with_any_number_of_y(critic, x, fitting_y):
    embedded, scores = critic.embed_x(x), critic(x, fitting_y)
    candidates = torch.tensor([[4, 0], [2, 2]])
    torch.testing.assert_close(critic.compare(embedded, fitting_y[1:3]), scores[1:3])
    some = critic.compare(embedded, fitting_y[1:3], candidates)
    for row in range(2):
        torch.testing.assert_close(some[row], scores[1 + row, candidates[row]])
    assert critic.compare(embedded, fitting_y[:0]).shape == (0, IMAGES, LOCATIONS)
    assert critic.compare(embedded[:0], fitting_y[:0]).shape == (0, 0, LOCATIONS)


def test_scores_are_float32_under_autocast(critic, x, fitting_y, candidates):
    exact = critic(x, fitting_y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for scores in (critic(x, fitting_y), critic(x.bfloat16(), fitting_y.bfloat16())):
            assert scores.dtype == torch.float32
            torch.testing.assert_close(scores, exact, rtol=0.05, atol=0.15)
        assert critic(x, fitting_y, candidates).dtype == torch.float32


def test_dot_products_are_not_rounded_by_autocast():
    x, y = torch.randn(8, 16, 64), torch.randn(8, 64)
    exact = torch.einsum("jlu,iu->ijl", x.double(), y.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (dot_scores(x, y) - exact).abs().max() < 1e-4  # bfloat16 would be off by 0.1


def test_gradients_reach_both_sides_and_every_parameter(critic, x, fitting_y):
    x.requires_grad_()
    fitting_y.requires_grad_()
    critic(x, fitting_y).square().sum().backward()
    for tensor in (x, fitting_y, *critic.parameters()):
        assert tensor.grad.abs().sum() > 0


def test_cosine_equals_torch(x):
    y = torch.randn(IMAGES, X)
    scores = Cosine(temperature=0.2)(x, y)
    for i in range(IMAGES):
        for j in range(IMAGES):
            for location in range(LOCATIONS):
                expected = F.cosine_similarity(x[j, location], y[i], dim=0) / 0.2
                torch.testing.assert_close(scores[i, j, location], expected)


def test_cosine_knows_no_lengths(x):
    y = torch.randn(IMAGES, X)
    torch.testing.assert_close(Cosine()(3 * x, 0.01 * y), Cosine()(x, y), rtol=1e-4, atol=1e-4)
    assert Cosine()(torch.zeros_like(x), y).isfinite().all()


@pytest.mark.parametrize("shortcut", ["linear", "relu"])
def test_encode_and_dot_equals_a_loop_over_pairs(x, y, shortcut):
    critic = EncodeAndDot(X, Y, units=12, shortcut=shortcut)
    scores = critic(x, y)

    def embed(network, value):
        residual = F.linear(value, network.shortcut.weight, network.shortcut.bias)
        residual = residual.clamp_min(0) if shortcut == "relu" else residual
        hidden = F.linear(value, network.hidden.weight, network.hidden.bias).clamp_min(0)
        return F.linear(hidden, network.output.weight, network.output.bias) + residual

    for i in range(IMAGES):
        for j in range(IMAGES):
            for location in range(LOCATIONS):
                f = embed(critic.embed_x, x[j, location])
                f = (f - f.mean()) / (f.var(unbiased=False) + 1e-5).sqrt()  # Table 8: over the units, at each location
                torch.testing.assert_close(
                    scores[i, j, location], (f * embed(critic.embed_y, y[i])).sum(), rtol=1e-4, atol=1e-5
                )


def test_only_the_embedding_of_x_is_normalised():
    critic = EncodeAndDot(X, Y, units=12)
    assert isinstance(critic.embed_x.norm, nn.LayerNorm)
    assert not isinstance(critic.embed_y.norm, nn.LayerNorm)
    embedded = ResidualEmbedding(X, 12, layer_norm=True)(100 * torch.randn(3, LOCATIONS, X))
    torch.testing.assert_close(embedded.mean(-1), torch.zeros(3, LOCATIONS), rtol=0, atol=1e-5)


def test_concat_equals_a_network_on_the_concatenation(x, y):
    critic = Concat(X, Y, units=12)
    first = nn.Linear(X + Y, 12)
    with torch.no_grad():
        first.weight.copy_(torch.cat([critic.embed_x.weight, critic.embed_y.weight], dim=1))
        first.bias.copy_(critic.embed_x.bias)
    network = nn.Sequential(first, nn.ReLU(), *critic.hidden, nn.ReLU(), critic.score)
    scores = critic(x, y)
    for i in range(IMAGES):
        for j in range(IMAGES):
            for location in range(LOCATIONS):
                pair = torch.cat([x[j, location], y[i]])
                torch.testing.assert_close(scores[i, j, location], network(pair).squeeze(), rtol=1e-4, atol=1e-5)


def test_concat_has_as_many_parameters_as_the_network_on_the_concatenation():
    plain = nn.Sequential(
        nn.Linear(X + Y, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 1)
    )  # Tables 5 and 6: two hidden layers
    assert sum(p.numel() for p in Concat(X, Y, units=12).parameters()) == sum(p.numel() for p in plain.parameters())


def test_an_unknown_shortcut_is_refused():
    with pytest.raises(UsageError, match="Unknown shortcut 'identity': choose one of linear, relu"):
        EncodeAndDot(X, Y, units=4, shortcut="identity")
