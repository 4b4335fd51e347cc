import math

import pytest
import torch
from torch.nn import functional as F

from hf_infomax import CMCConfig, CMCForPreTraining, UsageError
from hf_infomax.models.colors import rgb_to_lab, rgb_to_ycbcr


@pytest.fixture
def build(cmc_config):
    def make(**options):
        return CMCForPreTraining(cmc_config(**options)).eval()

    return make


@pytest.mark.parametrize(("space", "views"), [("lab", ["L", "ab"]), ("ycbcr", ["Y", "CbCr"])])
def test_the_loss_equals_a_loop_over_eq_4_in_both_directions(build, images, space, views):
    model = build(color_space=space, views=views, temperature=0.2)
    with torch.no_grad():
        output = model(images)
        z = {name: layers["y"].double() for name, layers in model.model.encode(images).items()}
    expected = {}
    for anchor, target in (views, views[::-1]):
        total = 0.0
        for i in range(6):
            h = [math.exp(F.cosine_similarity(z[anchor][i], z[target][j], dim=0) / 0.2) for j in range(6)]
            total += math.log(h[i] / sum(h)) + math.log(6)  # eq. 4 is the loss without the constant log k
        expected[f"{anchor}->{target}"] = total / 6
    assert {name: part.item() for name, part in output.parts.items()} == pytest.approx(expected, abs=1e-5)
    assert output.loss.item() == pytest.approx(-sum(expected.values()), abs=1e-5)
    assert output.bound.item() == pytest.approx(sum(expected.values()) / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("core", "pairs"),
    [
        (None, {"L->a", "a->L", "L->b", "b->L", "a->b", "b->a"}),  # eq. 8, the full graph
        ("L", {"L->a", "a->L", "L->b", "b->L"}),  # eq. 7
    ],
)
def test_more_than_two_views_are_the_sum_over_their_pairs(build, images, core, pairs):
    model = build(views=["L", "a", "b"], core_view=core)
    with torch.no_grad():
        output = model(images)
        z = {name: F.normalize(layers["y"], dim=1) for name, layers in model.model.encode(images).items()}
    assert set(output.parts) == pairs
    own = torch.arange(6)
    total = sum(
        F.cross_entropy(z[anchor] @ z[target].T / 0.07, own) - math.log(6)
        for anchor, target in (pair.split("->") for pair in pairs)
    )
    torch.testing.assert_close(output.loss, total, rtol=1e-4, atol=1e-4)
    assert output.bound.item() == pytest.approx(-total.item() / len(pairs), abs=1e-4)
    assert model.model(images).pooler_output.shape[1] == 3 * z["L"].shape[1]


def test_a_core_view_is_one_of_the_views(build):
    with pytest.raises(UsageError, match="Unknown core_view 'b': choose one of L, ab"):
        build(core_view="b")


def test_the_loss_is_a_symmetric_cross_entropy(build, images):
    model = build()
    output = model(images)
    left, right = (F.normalize(layers["y"], dim=1) for layers in model.model.encode(images).values())
    logits, own = left @ right.T / 0.07, torch.arange(6)
    cross_entropies = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
    torch.testing.assert_close(output.loss, cross_entropies - 2 * math.log(6), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("space", "convert"), [("lab", rgb_to_lab), ("ycbcr", rgb_to_ycbcr)])
def test_each_encoder_sees_its_own_channels(build, images, space, convert):
    views = {"lab": ["L", "ab"], "ycbcr": ["Y", "CbCr"]}[space]
    model = build(color_space=space, views=views)
    seen = model.model.views(images)
    planes = convert(images)
    assert [view.shape[1] for view in seen.values()] == [1, 2]
    for name, channels in zip(views, (planes[:, :1], planes[:, 1:]), strict=True):
        for channel in range(seen[name].shape[1]):
            pair = torch.stack([seen[name][:, channel].flatten(), channels[:, channel].flatten()])
            assert pair.corrcoef()[0, 1] > 0.9999


def test_the_views_do_not_mix_before_the_critic(build, images):
    model = build()
    encoders = model.model.encoders
    assert not {id(p) for p in encoders["L"].parameters()} & {id(p) for p in encoders["ab"].parameters()}
    model.model.encode(images)["L"]["y"].sum().backward()
    assert all(p.grad is None for p in encoders["ab"].parameters())
    assert any(p.grad is not None for p in encoders["L"].parameters())


def test_every_parameter_receives_a_gradient(build, images):
    model = build().train()
    model(images).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_few_negatives_lower_the_ceiling(build, images):
    model = build(temperature=0.001, num_negatives=2)
    with torch.no_grad():
        assert all(part <= math.log(3) + 1e-5 for part in model(images).parts.values())


def test_grey_images_have_no_colour_and_no_nan(build):
    model = build().train()
    grey = torch.rand(6, 1, 32, 32).expand(-1, 3, -1, -1)
    output = model(torch.cat([grey[:4], torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)]))
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_published_settings():
    config = CMCConfig()
    assert (config.temperature, config.representation_size, list(config.views)) == (0.07, 128, ["L", "ab"])
    model = CMCForPreTraining(config)
    assert model.model.layer_shapes["y"] == (256,)
    assert len(list(model.critic.parameters())) == 0
