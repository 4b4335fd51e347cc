import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hf_infomax.evaluation import logistic


@pytest.fixture(params=["scikit-learn", "L-BFGS"])
def way(request, monkeypatch):
    """Both sides of the one rule."""
    if request.param == "L-BFGS":
        monkeypatch.setattr(logistic, "SMALL", 0)
    return request.param


def make_problem(classes):
    labels = torch.randint(classes, (240,))
    x = torch.randn(classes, 8)[labels] + torch.randn(240, 8)
    return (x - x.mean(0)) / x.std(0), labels


@pytest.fixture
def problem():
    """Standardised features and labels of three overlapping classes."""
    return make_problem(3)


@pytest.mark.parametrize("strength", [1.0, 1e-2])
def test_the_solution_is_that_of_scikit_learn(way, problem, strength):
    x, labels = problem
    solution = logistic.fit(x, labels, strength, torch.zeros(3, 9), max_iter=500, tolerance=1e-6)
    oracle = LogisticRegression(C=1 / (strength * len(x)), max_iter=2000, tol=1e-8).fit(x.double(), labels)
    torch.testing.assert_close(solution[:, :-1], torch.from_numpy(oracle.coef_).float(), atol=2e-3, rtol=0)
    assert logistic.predict(x, solution).tolist() == oracle.predict(x.double()).tolist()


@pytest.mark.parametrize("classes", [2, 3])
def test_the_gradient_vanishes_at_the_solution(way, classes):
    x, labels = make_problem(classes)
    solution = logistic.fit(x, labels, 0.1, torch.zeros(classes, 9)).double().requires_grad_()
    logits = x.double() @ solution[:, :-1].T + solution[:, -1]
    loss = torch.nn.functional.cross_entropy(logits, labels) + 0.05 * solution[:, :-1].square().sum()
    (gradient,) = torch.autograd.grad(loss, solution)
    assert gradient.abs().max() < 1.1 * logistic.TOLERANCE


def test_the_start_is_left_alone(way, problem):
    start = torch.zeros(3, 9)
    logistic.fit(*problem, 0.1, start)
    assert not start.any()


@pytest.mark.parametrize("present", [1, 2, 3])
def test_a_class_without_a_sample_is_never_chosen(way, problem, present):
    x, labels = problem
    solution = logistic.fit(x, labels % present + 1, 0.01, torch.zeros(5, 9))
    assert solution.isfinite().all()
    assert set(logistic.predict(x, solution).tolist()) == set(range(1, present + 1))


def test_many_features_of_few_samples_are_fitted_in_their_span():
    draw = torch.Generator().manual_seed(0)
    x, labels = torch.randn(30, 200, generator=draw), torch.randint(3, (30,), generator=draw)
    found = logistic.fit(x, labels, 0.1, torch.zeros(3, 201), tolerance=1e-6)
    peer = LogisticRegression(C=1 / (0.1 * 30), tol=1e-6, max_iter=2000).fit(x.double().numpy(), labels.numpy())
    torch.testing.assert_close(found[:, :-1], torch.from_numpy(peer.coef_).float(), atol=1e-3, rtol=1e-2)
