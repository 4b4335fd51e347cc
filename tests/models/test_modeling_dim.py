import math

import pytest
import torch
from torch import nn
from transformers import AutoModel

from hf_infomax import DIMConfig, DIMForPreTraining, UsageError


@pytest.fixture
def build(dim_config):
    def make(**options):
        return DIMForPreTraining(dim_config(**options)).eval()

    return make


def test_the_local_loss_equals_a_loop_over_images_and_locations(build, images):
    model = build(gamma=0.0)
    critic = model.local_critic
    with torch.no_grad():
        output, layers = model(images), model.layers(images)
        local, y = layers["conv2"], layers["y"]
        total = 0.0
        for i in range(6):
            g = critic.embed_y(y[i])

            def score(j, row, column, g=g):
                return (critic.embed_x(local[j, :, row, column]) @ g).double()

            negatives = sum(
                score(j, row, column).exp() for j in range(6) if j != i for row in range(8) for column in range(8)
            )
            for row in range(8):
                for column in range(8):
                    positive = score(i, row, column)
                    total += positive - ((positive.exp() + negatives) / (5 * 64 + 1)).log()
    expected = (total / (6 * 64)).item()
    assert output.parts["local"].item() == pytest.approx(expected, abs=1e-4)
    assert output.bound.item() == pytest.approx(expected, abs=1e-4)
    assert output.loss.item() == pytest.approx(-expected, abs=1e-4)


def test_the_global_loss_equals_a_loop_over_pairs_of_images(build, images):
    model = build(alpha=1.0, beta=0.0, gamma=0.0, bound="jsd")
    critic = model.global_critic
    with torch.no_grad():
        output, layers = model(images), model.layers(images)
        positive, negative = [], []
        for i in range(6):
            for j in range(6):
                hidden = critic.embed_x(layers["conv"][j].flatten()) + critic.embed_y(layers["y"][i])
                score = critic.score(critic.hidden[0](hidden.relu()).relu())
                (positive if i == j else negative).append(score.double().item())
    expected = (
        -sum(math.log1p(math.exp(-p)) for p in positive) / 6 - sum(math.log1p(math.exp(n)) for n in negative) / 30
    )
    assert output.parts["global"].item() == pytest.approx(expected, abs=1e-5)
    assert output.loss.item() == pytest.approx(-expected, abs=1e-5)
    assert output.bound is None


@pytest.mark.parametrize("bound", ["infonce", "dv", "jsd"])
@pytest.mark.parametrize("local_critic", ["encode_and_dot", "concat"])
def test_the_loss_is_the_weighted_sum_of_its_parts(build, images, bound, local_critic):
    model = build(alpha=0.5, beta=0.1, gamma=0.3, bound=bound, local_critic=local_critic)
    output = model(images)
    assert set(output.parts) == {"global", "local", "prior_encoder", "prior_discriminator"}
    parts = {name: part.item() for name, part in output.parts.items()}
    prior = parts["prior_encoder"] + parts["prior_discriminator"]
    assert output.loss.item() == pytest.approx(-(0.5 * parts["global"] + 0.1 * parts["local"]) + 0.3 * prior, abs=1e-5)
    if bound == "jsd":
        assert output.bound is None
    else:
        assert output.bound.item() == pytest.approx((parts["global"] + parts["local"]) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ((1.0, 0.0, 1.0), {"global", "prior_encoder", "prior_discriminator"}),  # DIM(G)
        ((0.0, 1.0, 0.1), {"local", "prior_encoder", "prior_discriminator"}),  # DIM(L)
        ((0.5, 0.1, 0.0), {"global", "local"}),
        ((0, 1, 0), {"local"}),
    ],
)
def test_a_part_of_weight_zero_is_not_built(build, images, weights, parts):
    alpha, beta, gamma = weights
    model = build(alpha=alpha, beta=beta, gamma=gamma)
    assert set(model(images).parts) == parts
    built = {name.partition(".")[0] for name, _ in model.named_parameters()}
    named = {
        "global": "global_critic",
        "local": "local_critic",
        "prior_encoder": "prior",
        "prior_discriminator": "prior",
    }
    assert built == {"model"} | {named[part] for part in parts}


def test_every_parameter_receives_a_gradient(build, images):
    model = build(alpha=1.0).train()
    model(images).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_few_negatives_lower_the_ceiling(build, images):
    model = build(alpha=1.0, gamma=0.0, num_negatives=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
        parts = model(images).parts
    assert parts["global"] <= math.log(1 + 1) + 1e-5
    assert parts["local"] <= math.log(64 + 1) + 1e-5


def test_the_prior_has_its_own_learning_rate(build):
    model = build(prior_learning_rate=0.25)
    rates = {id(p): group["lr"] for group in model.parameter_groups(0.8, 0.1) for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.2 if name.startswith("prior.") else 0.8)


def test_the_prior_term_moves_the_encoder_alone(build, images):
    model = build(beta=0.0, gamma=1.0)
    terms = model.prior(model.layers(images)["y"])
    terms["prior_encoder"].backward()
    moved = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert moved == {"model"}


@pytest.mark.parametrize("prior", ["uniform", "gaussian", "ball", "sphere"])
def test_priors_and_their_saturating_form(build, images, prior):
    for saturating in (False, True):
        model = build(prior=prior, prior_saturating=saturating)
        encoder = model(images).parts["prior_encoder"]
        assert encoder < 0 if saturating else encoder > 0


def test_location_losses_are_the_map_whose_mean_is_minus_the_bound(build, images):
    model = build(gamma=0.0)
    losses = model.location_losses(images)
    assert losses.shape == (6, 8, 8)
    assert not losses.requires_grad
    assert losses.mean().item() == pytest.approx(-model(images).bound.item(), abs=1e-5)


def test_location_losses_put_every_location_in_its_place(build, images):
    model = build(gamma=0.0)
    with torch.no_grad():
        layers = model.layers(images)
        local = layers["conv2"].flatten(2).transpose(1, 2)  # (6, 64, C), row by row
        scores = model.local_critic(local, layers["y"])
        expected = torch.zeros(6, 8, 8)
        for i in range(6):
            negatives = torch.cat([scores[i, j] for j in range(6) if j != i]).exp().sum()
            for row in range(8):
                for column in range(8):
                    positive = scores[i, i, 8 * row + column]
                    expected[i, row, column] = ((positive.exp() + negatives) / (5 * 64 + 1)).log() - positive
    torch.testing.assert_close(model.location_losses(images), expected, rtol=1e-4, atol=1e-4)


def test_location_losses_ask_the_y_of_other_pixels_about_the_map(build, images):
    model = build(gamma=0.0)
    plain, occluded = model.location_losses(images), images.clone()
    occluded[2] = 0.0
    changed = model.location_losses(images, occluded)
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(changed[others], plain[others])  # only the y of image 2 is another one
    assert (changed[2] - plain[2]).abs().max() > 1e-3


def test_the_local_map_is_the_next_to_last_unless_told(build):
    assert build().local_layer == "conv2"
    model = build(local_layer="conv1", local_critic="concat")
    assert model.local_layer == "conv1"
    assert model.local_critic.embed_x.in_features == 8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"local_layer": "fc"}, "Unknown local_layer 'fc': choose one of conv1, conv2, conv."),
        ({"local_critic": "dot"}, "Unknown local_critic 'dot': choose one of encode_and_dot, concat."),
        ({"prior": "normal"}, "Unknown prior 'normal': choose one of uniform, gaussian, ball, sphere."),
        ({"bound": "mine"}, "Unknown bound 'mine': choose one of infonce, dv, jsd."),
    ],
)
def test_a_mistaken_name_is_one_sentence(build, options, sentence):
    with pytest.raises(UsageError) as raised:
        build(**options)
    assert str(raised.value) == sentence


def test_a_batch_of_one(build):
    with pytest.raises(UsageError, match=r"^A batch of one image"):
        build()(torch.rand(1, 3, 32, 32))


def test_the_published_sizes():
    model = DIMForPreTraining(DIMConfig(alpha=1.0))
    assert model.model.layer_shapes["y"] == (64,)
    assert model.model.layer_shapes[model.local_layer] == (128, 8, 8)
    assert model.local_critic.embed_x.output.out_features == 2048
    assert model.global_critic.embed_x.in_features == 4 * 4 * 256
    assert [m.out_features for m in model.prior.modules() if isinstance(m, nn.Linear)] == [1000, 200, 1]


def test_a_representation_without_y(build, images):
    model = build(representation_size=None)
    assert model.feature_layers == ("conv1", "conv2", "conv", "fc")
    assert model(images).loss.isfinite()


def test_an_objective_without_weights_and_a_loss_map_without_its_critic_are_refused(build, images):
    with pytest.raises(UsageError, match="no objective"):
        build(alpha=0.0, beta=0.0, gamma=0.0)
    with pytest.raises(UsageError, match="beta=0"):
        build(alpha=1.0, beta=0.0).location_losses(images)


def test_images_of_another_size_are_refused(build):
    with pytest.raises(UsageError, match="32x32 pixels, not 40x40"):
        build()(torch.rand(4, 3, 40, 40))


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_images_too_small_for_the_backbone_are_refused(dim_config):
    with pytest.raises(UsageError, match="too small"):
        DIMForPreTraining(dim_config(image_size=4))


def test_y_comes_from_the_occluded_images_and_the_maps_from_the_whole_ones(build, images):
    model = build(alpha=1.0, beta=1.0, gamma=0.0)
    occluded = images.flip(0)
    with torch.no_grad():
        output = model(images, occluded_values=occluded)
        layers, y = model.layers(images), model.layers(occluded)["y"]
        whole = layers["conv"].flatten(1).unsqueeze(1)
        local = layers["conv2"].flatten(2).transpose(1, 2)
        expected = {
            "global": model.bound(*model.negatives(model.global_critic, whole, y)),
            "local": model.bound(*model.negatives(model.local_critic, local, y)),
        }
    assert {name: value.item() for name, value in output.parts.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}
    )
    assert not torch.equal(output.loss, model(images).loss)


def test_coordinates_are_added_to_the_loss_by_their_weights(build, images):
    torch.manual_seed(0)
    output = build(gamma=0.0, absolute_coordinates=0.5, relative_coordinates=2.0, coordinate_units=[12, 8])(images)
    parts = output.parts
    expected = -parts["local"] + 0.5 * parts["absolute"] + 2 * parts["relative"]
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert output.bound.item() == pytest.approx(parts["local"].item())


def test_a_coordinate_task_without_weight_is_not_built(build):
    assert list(build(absolute_coordinates=1.0).coordinates) == ["absolute"]
    assert not build().coordinates


def test_an_encoder_trained_with_coordinates_loads_without_a_warning(build, tmp_path, recwarn):
    build(relative_coordinates=1.0).save_pretrained(tmp_path)
    AutoModel.from_pretrained(tmp_path)
    assert not recwarn.list
