import math

import pytest
import torch

from hf_infomax import UsageError
from hf_infomax.evaluation.divergence import run_generators
from hf_infomax.evaluation.mine import PairCritic, mine

QUICK = {"runs": 2, "hidden": 32, "steps": 200, "batch_size": 128, "learning_rate": 5e-3, "progress": False}


def gaussians(information, samples=3000, size=2):
    rho = math.sqrt(1 - math.exp(-2 * information / size))
    x, noise = torch.randn(2, samples, size, generator=torch.Generator().manual_seed(0))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


@pytest.mark.parametrize("information", [0.0, 1.0])
def test_it_finds_the_information_of_gaussians(information):
    found = mine(*gaussians(information), **QUICK)
    assert found.mean == pytest.approx(information, abs=0.25)


def test_it_is_blind_to_scale_and_place():
    x, y = gaussians(1.0, samples=200)
    options = QUICK | {"steps": 5}
    assert mine(100 * x + 7, y - 3, **options).values == pytest.approx(mine(x, y, **options).values, abs=1e-3)


def test_what_is_memorised_does_not_count():
    x, y = torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(0))
    found = mine(x, y, **QUICK)
    assert max(max(values) for values in found.curve.values()) < 1
    memorised = mine(x, x + y, **QUICK)
    assert sum(memorised.training) > sum(memorised.values)


def test_the_network_scores_each_pair_and_the_rows_after_it():
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    critic = PairCritic(x, y, 8, 3, run_generators(0, 2))

    def score(run, x, y):
        x = (x - critic.normalise_x.mean) * critic.normalise_x.scale
        y = (y - critic.normalise_y.mean) * critic.normalise_y.scale
        weight = torch.cat([critic.embed_x.weight[run], critic.embed_y.weight[run]])
        hidden = (torch.cat([x, y]) @ weight + critic.embed_x.bias[run, 0]).relu()
        hidden = (hidden @ critic.hidden.weight[run] + critic.hidden.bias[run, 0]).relu()
        return (hidden @ critic.output.weight[run] + critic.output.bias[run, 0]).item()

    positive, negative = critic(x.expand(2, 5, 3), y.expand(2, 5, 2))
    assert negative.shape == (2, 5, 3)
    for run in range(2):
        for i in range(5):
            assert positive[run, i].item() == pytest.approx(score(run, x[i], y[i]), abs=1e-5)
            for k in range(3):
                assert negative[run, i, k].item() == pytest.approx(score(run, x[i], y[(i + k + 1) % 5]), abs=1e-5)
    assert critic(x[:3].expand(2, 3, 3), y[:3].expand(2, 3, 2))[1].shape == (2, 3, 2)  # nobody meets his own partner


def test_images_are_flattened():
    images = torch.randint(256, (60, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y, options = images.float().mean(dim=(2, 3)), QUICK | {"steps": 3}
    expected = mine(images.flatten(1).float() / 255, y, **options)
    assert mine(images, y, **options).values == pytest.approx(expected.values, abs=1e-4)


def test_runs_follow_the_seed():
    x, y = gaussians(1.0, samples=60)
    options = QUICK | {"steps": 3}
    assert mine(x, y, seed=1, **options) == mine(x, y, seed=1, **options)
    assert mine(x, y, seed=1, **options) != mine(x, y, seed=2, **options)


@pytest.mark.parametrize("setting", ["runs", "steps", "hidden", "negatives"])
def test_settings_that_train_nothing_are_refused(setting):
    with pytest.raises(UsageError, match=f"{setting}=0: choose 1 or more"):
        mine(*gaussians(1.0, samples=60), **(QUICK | {setting: 0}))


def test_inputs_that_do_not_serve_are_refused():
    x, y = gaussians(1.0, samples=60)
    with pytest.raises(UsageError, match="batch_size=1"):
        mine(x, y, **(QUICK | {"batch_size": 1}))
    with pytest.raises(UsageError, match="Images must be RGB"):
        mine(torch.zeros(60, 1, 4, 4), y, **QUICK)
    with pytest.raises(UsageError, match="x holds NaN"):
        mine(x / 0 * 0, y, **QUICK)
