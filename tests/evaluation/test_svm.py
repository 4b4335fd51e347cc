import pytest
import torch
from sklearn.svm import LinearSVC

from hf_infomax.evaluation import logistic
from hf_infomax.evaluation.svm import fit_svm, svm_probe
from hf_infomax.models.errors import UsageError


def make_problem(samples, classes=4, size=12):
    labels = torch.randint(classes, (samples,))
    x = 1.2 * torch.randn(classes, size)[labels] + torch.randn(samples, size)
    return (x - x.mean(0)) / x.std(0), labels


@pytest.mark.parametrize("strength", [1e-1, 1e-3])
def test_predictions_are_those_of_scikit_learn(strength):
    x, labels = make_problem(3000)
    solution = fit_svm(x[:1000], labels[:1000], strength, torch.zeros(4, 13))
    oracle = LinearSVC(loss="hinge", C=1 / (strength * 1000), max_iter=100_000).fit(x[:1000].double(), labels[:1000])
    predicted, expected = logistic.predict(x[1000:], solution), torch.from_numpy(oracle.predict(x[1000:].double()))
    assert (predicted == expected).float().mean() > 0.97
    right = [(found == labels[1000:]).float().mean().item() for found in (predicted, expected)]
    assert right[0] == pytest.approx(right[1], abs=0.01)


def test_the_objective_is_near_the_least():
    x, labels = make_problem(400)
    solution = fit_svm(x, labels, 1e-2, torch.zeros(4, 13))
    sign = 2 * torch.nn.functional.one_hot(labels) - 1

    def objective(solution):
        hinge = (1 - sign * (x @ solution[:, :-1].T + solution[:, -1])).clamp(min=0).mean(0)
        return (hinge + 0.005 * solution[:, :-1].square().sum(1)).sum()

    found = objective(solution)
    for _ in range(20):
        assert found < objective(solution + 0.1 * torch.randn_like(solution))


def test_seeds_differ_by_what_they_hold_out_and_repeat():
    x, labels = make_problem(300)
    problem = x[:200], labels[:200], x[200:], labels[200:]
    assert svm_probe(*problem, seed=1) == svm_probe(*problem, seed=1)
    assert svm_probe(*problem, seed=1).validation != svm_probe(*problem, seed=2).validation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_y": torch.ones(20)}, "single class"),
        ({"train_y": torch.rand(20)}, "integer"),
        ({"test_x": torch.full((20, 3), torch.nan)}, "test_x holds NaN"),
        ({"strengths": ()}, "strengths"),
    ],
)
def test_mistakes_are_named(change, message):
    labels = torch.arange(20) % 2
    given = {"train_x": torch.rand(20, 3), "train_y": labels, "test_x": torch.rand(20, 3), "test_y": labels}
    with pytest.raises(UsageError, match=message):
        svm_probe(**(given | change))
