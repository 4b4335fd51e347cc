import pytest
import torch

from hf_infomax.evaluation.schedules import SCHEDULES, scheduled_linear_probe
from hf_infomax.models.errors import UsageError


@pytest.fixture
def problem():
    labels = torch.randint(4, (600,))
    x = 3 * torch.eye(4, 10)[labels] + torch.randn(600, 10)
    return x[:400], labels[:400], x[400:], labels[400:]


def rates(name, accuracies):
    plan = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], plan.learning_rate)
    after_epoch, found = plan.drops.start(optimizer, plan.epochs), []
    for value in accuracies:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        after_epoch(value)
    return found


def test_cmc_falls_after_60_75_and_90_epochs():
    found = rates("cmc", [0.5] * 100)
    changes = [epoch for epoch in range(1, 100) if found[epoch] != found[epoch - 1]]
    assert changes == [60, 75, 90]
    assert found[-1] == pytest.approx(0.1 * 0.2**3)


def test_instance_discrimination_falls_twice_after_ten_epochs_without_a_gain():
    found = rates("instdisc", [0.5] * 40)
    assert [found[i] for i in (10, 11, 20, 21, 39)] == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    assert rates("instdisc", [0.01 * epoch for epoch in range(40)])[-1] == 0.01


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_learns(problem, schedule):
    result = scheduled_linear_probe(*problem, schedule=schedule, epochs=6, progress=False)
    assert result.value > 0.85
    assert result.settings["epochs"] == 6
    assert result == scheduled_linear_probe(*problem, schedule=schedule, epochs=6, progress=False)


def test_an_unknown_schedule_is_named(problem):
    with pytest.raises(UsageError, match="'cmcc': choose one of cmc"):
        scheduled_linear_probe(*problem, schedule="cmcc")
