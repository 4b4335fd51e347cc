import math

import pytest
import torch
from torch import nn

from hf_infomax import CMCConfig, CMCModel, DIMConfig, DIMModel, InstDiscConfig, InstDiscForPreTraining, UsageError
from hf_infomax.data import recipes
from hf_infomax.evaluation import augmentation_information, fit_temperature, paired_information, view_information
from hf_infomax.evaluation import information as module


def test_it_equals_a_loop_over_both_directions(monkeypatch):
    monkeypatch.setattr(module, "_ANCHORS", 3)  # pieces, the last of them short
    x, y = torch.randn(7, 4), torch.randn(7, 4)
    total = 0.0
    for one, other in ((x, y), (y, x)):
        for i in range(7):
            h = [math.exp(torch.cosine_similarity(one[i], other[j], dim=0) / 0.3) for j in range(7)]
            total += math.log(h[i] / (sum(h) / 7))
    assert paired_information(x, y, 0.3) == pytest.approx(total / 14, abs=1e-5)


def test_the_ceiling_is_the_logarithm_of_the_number_and_strangers_share_nothing():
    x = torch.randn(64, 256)
    assert paired_information(x, x, 0.01) == pytest.approx(math.log(64), abs=1e-3)
    assert abs(paired_information(x, torch.randn(64, 256), 1.0)) < 0.05


def test_it_stays_below_the_information_of_a_gaussian_channel():
    torch.manual_seed(0)
    signal = torch.randn(2000, 8)
    x, y = signal + 0.5 * torch.randn(2000, 8), signal + 0.5 * torch.randn(2000, 8)
    correlation = 1 / 1.25
    true = -0.5 * 8 * math.log(1 - correlation**2)  # 4.1 nats
    found = paired_information(x[1000:], y[1000:], fit_temperature(x[:1000], y[:1000]))
    assert 0.5 * true < found < true


def test_the_temperature_is_the_best_of_those_given():
    x = torch.randn(50, 16)
    y = x + torch.randn(50, 16)
    values = {t: paired_information(x, y, t) for t in (0.02, 0.1, 0.5)}
    assert fit_temperature(x, y, tuple(values)) == max(values, key=values.get)


def test_every_two_views_are_compared():
    kwargs = {"channels": [8, 12, 16], "hidden_sizes": [24]}
    model = CMCModel(CMCConfig(views=["L", "a", "b"], backbone_kwargs=kwargs, representation_size=10))
    train, test = (torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8) for _ in range(2))
    found = view_information(model.train(), train, test, images=30, batch_size=16)
    assert list(found) == ["L;a", "L;b", "a;b"]
    assert all(value <= math.log(30) for value in found.values())
    assert model.training


class ByBrightness(nn.Module):
    """Sees of an image its first pixel alone, one of eight, as a vector of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))

    def embeddings(self, pixel_values):
        return {"RGB": self.weight[(pixel_values[:, 0, 0, 0] * 255).round().long()]}


def eight_kinds(each):
    return torch.arange(8, dtype=torch.uint8).repeat(each)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()


def test_two_augmentations_share_the_logarithm_of_the_kinds_that_the_critic_tells_apart():
    def kept(pixel_values, sample_index, epoch):
        return {"pixel_values": torch.stack([pixel_values.float() / 255] * 3, dim=1)}

    model, images = ByBrightness(), eight_kinds(each=5)
    found = augmentation_information(model, kept, images, images.flip(0), batch_size=12)  # the last batch is filled up
    assert found == pytest.approx(math.log(8), abs=1e-4)


def test_augmentations_that_forget_the_image_share_nothing():
    def forgetful(pixel_values, sample_index, epoch):
        drawn = torch.randint(8, (len(pixel_values), 2))  # another kind each time
        return {"pixel_values": (drawn / 255)[..., None, None, None].expand(-1, -1, 3, 4, 4)}

    found = augmentation_information(ByBrightness(), forgetful, eight_kinds(each=50), eight_kinds(each=50))
    assert abs(found) < 0.1


def test_a_recipe_of_one_augmentation_is_drawn_twice_and_two_are_compared_as_a_loop_does():
    model = InstDiscForPreTraining(InstDiscConfig.preset("simclr"))
    train, test = (torch.randint(256, (30, 3, 32, 32), dtype=torch.uint8) for _ in range(2))
    views = recipes.load("simclr", image_size=32)
    vectors = []
    for pixels in (train[:20], test[:20]):
        shown = views(pixels, sample_index=torch.arange(20), epoch=-1)["pixel_values"]
        model.eval()
        vectors.append([model.embeddings(shown[:, place])["RGB"] for place in (0, 1)])
    expected = paired_information(*vectors[1], fit_temperature(*vectors[0]))
    model.train()
    assert augmentation_information(model, views, train, test, images=20, batch_size=8) == pytest.approx(
        expected, abs=1e-4
    )
    assert model.training
    single = recipes.load("instdisc", image_size=32)
    assert augmentation_information(model, single, train, test, images=20) <= math.log(20)


def test_mistakes_are_one_sentence():
    with pytest.raises(UsageError, match="cannot be told apart: give two or more"):
        augmentation_information(ByBrightness(), None, eight_kinds(1), eight_kinds(1), images=1)
    with pytest.raises(UsageError, match=r"are no pairs: give two or more rows"):
        paired_information(torch.randn(4, 3), torch.randn(5, 3), 0.1)
    with pytest.raises(UsageError, match="needs a model of two views or more"):
        view_information(DIMModel(DIMConfig()), torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
