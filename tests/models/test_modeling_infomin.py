import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_infomax import InfoMinConfig, InfoMinForPreTraining, InfoMinModel, InstDiscForPreTraining, UsageError
from hf_infomax.models.modeling_infomin import unchanged_statistics

N = 40
INDEX = torch.tensor([7, 30, 0, 39, 12, 3])


@pytest.fixture
def build(infomin_config):
    def make(preset="infomin", **options):
        model = InfoMinForPreTraining(infomin_config(preset, **options))
        return model, model.training_state(N, torch.device("cpu"))

    return make


@pytest.fixture
def batch(images):
    """Two augmentations of each image, and nine pieces."""
    return {
        "pixel_values": torch.stack([images, images.flip(-1)], dim=1),
        "jigsaw_values": torch.rand(6, 9, 3, 9, 9),
        "sample_index": INDEX,
    }


@pytest.fixture
def keys():
    return torch.randn(16, 6)


@pytest.mark.parametrize("critic", ["cosine", "bilinear", "mlp1"])
@pytest.mark.parametrize("preset", InfoMinConfig.presets)
def test_every_preset_takes_steps(build, batch, preset, critic):
    model, state = build(preset, critic=critic)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {"image", "jigsaw"} if preset in ("pirl", "infomin") else {"image"}
    for number in range(3):
        output = model(**batch, state=state)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        state.after_step(output, number)
        assert output.loss.isfinite()
        assert set(output.parts) == names
        assert output.loss.item() == pytest.approx(-sum(output.parts[name].item() for name in names) / len(names))
        assert output.bound.item() == pytest.approx(sum(output.parts[name].item() for name in names) / len(names))
    assert all(parameter.grad is not None for parameter in model.parameters())


def naive(y, key, others, temperature):
    """One image: -log softmax of its own key among the others', plus the log of their number."""
    scores = torch.stack([y @ key, *(y @ other for other in others)]) / temperature
    return scores[0] - scores.logsumexp(0) + math.log(len(scores))


def test_moco_is_cross_entropy_over_the_queue(build, batch, keys):
    model, state = build("moco_v2", key_group=6)
    queue = state.queues["RGB"]
    queue.enqueue(keys, torch.tensor([7, *range(100, 115)]))
    with torch.no_grad():
        y = model.embed(batch["pixel_values"][:, 0])
        key = model.embed(batch["pixel_values"][:, 1])  # the copy is equal so far
        output = model(**batch, state=state)
    expected = []
    for place in range(6):
        others = queue.rows[1:] if place == 0 else queue.rows  # the first key is of image 7 itself
        expected.append(naive(y[place], key[place], others, 0.2))
    torch.testing.assert_close(output.bound, torch.stack(expected).mean())


def test_infomin_is_half_of_each_view_against_the_same_keys(build, batch, keys):
    model, state = build("infomin", key_group=6)
    state.queues["RGB"].enqueue(keys)
    with torch.no_grad():
        pieces = model.embed_pieces(batch["jigsaw_values"])
        key = model.embed(batch["pixel_values"][:, 1])
        output = model(**batch, state=state)
    expected = [naive(pieces[place], key[place], state.queues["RGB"].rows, 0.15) for place in range(6)]
    torch.testing.assert_close(output.parts["jigsaw"], torch.stack(expected).mean())
    torch.testing.assert_close(output.loss, -(output.parts["image"] + output.parts["jigsaw"]) / 2)
    assert not output.embeddings["RGB"].requires_grad


def test_another_weight_of_the_pieces(build, batch):
    model, state = build("infomin", jigsaw_weight=0.25)
    model(**batch, state=state)
    state.after_step(model(**batch, state=state), 0)
    output = model(**batch, state=state)
    torch.testing.assert_close(output.loss, -(0.75 * output.parts["image"] + 0.25 * output.parts["jigsaw"]))


def test_pirl_compares_the_image_and_its_pieces_with_the_bank(build, batch):
    model, state = build("pirl", num_negatives=12)
    image = batch.pop("pixel_values")[:, 0]  # one augmentation will do
    bank = state.banks["RGB"]
    before = bank.lookup(INDEX).clone()
    output = model(image, **batch, state=state)
    state.after_step(output, 0)
    with torch.no_grad():
        vectors = model.embed(image)
    moved = F.normalize(0.5 * before + 0.5 * vectors, dim=1)  # by the whole image, not by its pieces
    torch.testing.assert_close(bank.lookup(INDEX), moved, atol=1e-5, rtol=0)


def test_without_queue_and_copy_it_is_simclr_in_one_direction(build, batch, instdisc_config):
    model, state = build("moco_v2", negatives="batch", encoder_momentum=None)
    assert state is None
    model.eval()  # SimCLR encodes both augmentations as one batch
    other = InstDiscForPreTraining(
        instdisc_config("simclr", backbone="dcgan_pooled", head_units=6, temperature=0.2, representation_size=10)
    )
    other.load_state_dict(model.state_dict())
    other.eval()
    expected = other(batch["pixel_values"]).parts["1->2"]
    torch.testing.assert_close(model(batch["pixel_values"]).bound, expected)


def test_pieces_are_encoded_one_by_one(build, batch):
    model, _ = build("infomin")
    model.eval()  # by fixed statistics
    with torch.no_grad():
        together = model.embed_pieces(batch["jigsaw_values"])
        features = torch.stack([model.represent(batch["jigsaw_values"][:, place]) for place in range(9)], dim=1)
        alone = F.normalize(model.jigsaw(features), dim=1)
    torch.testing.assert_close(together, alone)
    order = torch.randperm(9)
    with torch.no_grad():
        moved = F.normalize(model.jigsaw(features[:, order]), dim=1)
        torch.testing.assert_close(model.embed_pieces(batch["jigsaw_values"][:, order]), moved)


def test_pieces_do_not_teach_the_statistics_of_images(build, batch):
    model, _ = build("infomin")
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    model.embed_pieces(batch["jigsaw_values"])
    assert norm.running_mean.equal(before)
    assert norm.momentum == 0.1
    model.embed(batch["pixel_values"][:, 0])
    assert not norm.running_mean.equal(before)
    with pytest.raises(RuntimeError), unchanged_statistics(model):
        raise RuntimeError
    assert norm.momentum == 0.1


def test_the_representation_is_before_the_head(build, batch):
    model, _ = build("infomin", representation_size=None)
    assert model.feature_layers == ("conv1", "conv2", "conv", "fc")
    assert model.head[-1].out_features == 6
    assert model.head[0].out_features == 24  # as wide as the representation, whatever that is


def test_a_run_takes_its_gradient_from_queries_alone(build, batch):
    model, state = build("moco_v2")
    state.after_step(model(**batch, state=state), 0)
    output = model(**batch, state=state)
    output.loss.backward()
    assert all(parameter.grad is None for parameter in state.copy.model.parameters())
    assert model.head[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_momentum": None}, "set encoder_momentum, such as 0.999, or negatives='batch'"),
        ({"num_negatives": 5}, "set queue_size instead of num_negatives"),
        ({"negatives": "bank"}, "set encoder_momentum=null with it"),
        ({"jigsaw_weight": 1.5}, "jigsaw_weight=1.5: give a share"),
        ({"head": None}, "put together by a head: set head='linear'"),
        ({"backbone": "dim_dcgan"}, "the pieces of a jigsaw are smaller: take dcgan_pooled"),
        ({"backbone": "dim_dcgan", "queue_fill": "noise", "jigsaw_weight": 0}, "Unknown queue_fill 'noise'"),
        ({"negatives": "stack"}, "Unknown negatives 'stack': choose one of .*queue"),
        ({"bound": "nce"}, "bound='nce' draws its noise from all of the data"),
    ],
)
def test_what_does_not_belong_together_is_refused(infomin_config, options, message):
    with pytest.raises(UsageError, match=message):
        InfoMinForPreTraining(infomin_config(**options))


def test_what_a_batch_lacks_is_one_sentence(build, batch):
    model, state = build("infomin")
    with pytest.raises(UsageError, match=r"give state=model\.training_state"):
        model(**batch)
    with pytest.raises(UsageError, match=r"set model\.jigsaw_weight=0"):
        model(batch["pixel_values"], state=state)
    for values in (batch["pixel_values"][:, 0], batch["pixel_values"][:, :1]):
        with pytest.raises(UsageError, match="two augmentations of an image: give pixel_values"):
            model(values, state=state, jigsaw_values=batch["jigsaw_values"])
    with pytest.raises(UsageError, match="have 4 pieces of each image"):
        model(batch["pixel_values"], state=state, jigsaw_values=batch["jigsaw_values"][:, :4])
    with pytest.raises(UsageError, match="pixel_values must be"):
        model(None, state=state)
    pirl = build("pirl")[0]
    with pytest.raises(UsageError, match="a stream has no index"):
        pirl.training_state(None, torch.device("cpu"))


def test_the_defaults_are_the_papers():
    config = InfoMinConfig()
    assert (config.queue_size, config.encoder_momentum, config.temperature, config.jigsaw_weight) == (
        65_536,
        0.999,
        0.15,
        0.5,
    )
    assert InfoMinConfig.preset("moco").head == "linear"
    assert InfoMinForPreTraining(InfoMinConfig.preset("pirl")).paper_negatives == 32_000
    assert InfoMinModel(config).feature_layers[-1] == "fc"
