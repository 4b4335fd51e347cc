import pytest
import torch
from torch import nn

from hf_infomax.models.errors import UsageError
from hf_infomax.models.momentum import MomentumCopy


class Encoder(nn.Module):
    """A batch norm, whose statistics tell images of their batch, or a group norm, whose do not."""

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), norm(4) if norm is nn.BatchNorm2d else norm(2, 4), nn.ReLU())
        self.last = nn.Linear(4, 5)

    def embeddings(self, images):
        return {"RGB": self.last(self.net(images).mean(dim=(2, 3)))}


@pytest.fixture
def encoder():
    return Encoder()


@pytest.fixture
def images():
    return torch.rand(24, 3, 8, 8)


def step(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


def test_a_thousand_steps_are_a_naive_running_mean(encoder):
    copy = MomentumCopy(encoder, momentum=0.99)
    naive = [parameter.detach().double() for parameter in encoder.parameters()]
    for _ in range(1000):
        step(encoder)
        copy.update()
        naive = [0.99 * k + 0.01 * q.detach().double() for k, q in zip(naive, encoder.parameters(), strict=True)]
    for key, expected in zip(copy.model.parameters(), naive, strict=True):
        torch.testing.assert_close(key.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_momentum_of_zero_is_the_newest_encoder(encoder, images):
    copy = MomentumCopy(encoder, momentum=0.0, group=24)
    step(encoder)
    assert not copy(images)["RGB"].allclose(encoder.embeddings(images)["RGB"])
    copy.update()
    torch.testing.assert_close(copy(images)["RGB"], encoder.embeddings(images)["RGB"])


def test_it_has_no_gradient_and_leaves_the_encoder_alone(encoder, images):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    copy = MomentumCopy(encoder)
    keys = copy(images)["RGB"]
    copy.update()
    assert not keys.requires_grad
    assert not any(parameter.requires_grad for parameter in copy.model.parameters())
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.training
    for name, tensor in encoder.state_dict().items():
        assert tensor.equal(before[name])


def test_shuffled_groups_are_normalised_by_themselves(encoder, images):
    copy = MomentumCopy(encoder, group=8)
    keys = copy(images)["RGB"]
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    expected = torch.empty_like(keys)
    for group in order.chunk(3):
        expected[group] = encoder.embeddings(images[group])["RGB"].detach()
    torch.testing.assert_close(keys, expected)
    assert not keys.allclose(copy(images)["RGB"], atol=1e-3)  # another order
    whole = MomentumCopy(encoder, group=24)(images)["RGB"]
    assert not keys.allclose(whole, atol=1e-3)


def test_with_running_statistics_a_key_does_not_depend_on_its_batch(encoder, images):
    copy = MomentumCopy(encoder, norm="running")
    encoder.embeddings(images)
    copy.update()
    keys = copy(images)["RGB"]
    torch.testing.assert_close(copy(images[:3])["RGB"], keys[:3])
    mean, running = encoder.net[1].running_mean, copy.model.net[1].running_mean
    torch.testing.assert_close(running, 0.001 * mean)  # it began at 0
    assert copy.model.net[1].num_batches_tracked == 0


def test_the_first_pass_teaches_running_statistics(encoder, images):
    copy = MomentumCopy(encoder, norm="running")
    copy.first(images)
    assert copy.model.net[1].running_mean.abs().min() > 0
    assert (encoder.net[1].running_mean == 0).all()


def test_without_a_batch_norm_nothing_is_shuffled(images):
    encoder = Encoder(nn.GroupNorm)
    copy = MomentumCopy(encoder, group=8)
    torch.testing.assert_close(copy(images)["RGB"], encoder.embeddings(images)["RGB"])
    assert copy.draws == 0


@pytest.mark.parametrize("norm", ["shuffle", "running"])
def test_it_goes_on_exactly(tmp_path, images, norm):
    def run(copy, steps):
        for _ in range(steps):
            copy.source.embeddings(images)
            copy(images)
            step(copy.source)
            copy.update()

    source = Encoder()
    copy = MomentumCopy(source, norm=norm, group=8)
    run(copy, 3)
    copy.save(tmp_path / "momentum.safetensors")
    other = Encoder()
    other.load_state_dict(source.state_dict())
    resumed = MomentumCopy(other, norm=norm, group=8)
    resumed.load(tmp_path / "momentum.safetensors")
    for one in (copy, resumed):
        torch.manual_seed(5)
        run(one, 3)
    for name, tensor in copy.model.state_dict().items():
        assert resumed.model.state_dict()[name].equal(tensor), name
    assert resumed(images)["RGB"].equal(copy(images)["RGB"])


def test_errors_name_the_way_out(tmp_path, encoder):
    with pytest.raises(UsageError, match=r"encoder_momentum=1\.5 and key_group=32: give a momentum from 0 to 1"):
        MomentumCopy(encoder, momentum=1.5)
    with pytest.raises(UsageError, match="groups of 2 or more"):
        MomentumCopy(encoder, group=1)
    with pytest.raises(UsageError, match="Unknown key_norm 'batch'"):
        MomentumCopy(encoder, norm="batch")
    MomentumCopy(encoder).save(tmp_path / "momentum.safetensors")
    with pytest.raises(UsageError, match="another model than the recipe describes"):
        MomentumCopy(Encoder(nn.GroupNorm)).load(tmp_path / "momentum.safetensors")
