import pytest
import torch
from sklearn.linear_model import Ridge

from hf_infomax.evaluation import linear_probe, linear_regression_probe
from hf_infomax.models.errors import UsageError


def classes(samples=400, size=12, distance=8.0):
    """Features around five centres, and the labels."""
    labels = torch.randint(5, (samples,))
    return distance * torch.eye(5, size)[labels] + torch.randn(samples, size), labels


def split(x, y):
    half = len(x) // 2
    return x[:half], y[:half], x[half:], y[half:]


def test_separable_classes_are_read():
    result = linear_probe(*split(*classes()))
    assert result.value > 0.99
    assert result.metric == "accuracy"
    assert result.strength in result.validation


def test_noise_is_read_at_chance():
    x, labels = torch.randn(2000, 10), torch.randint(5, (2000,))
    assert linear_probe(*split(x, labels)).value == pytest.approx(0.2, abs=0.06)


def test_units_and_dead_features_do_not_matter():
    x, labels = classes(distance=2.0)
    dead = torch.full((len(x), 1), 0.1)
    plain = linear_probe(*split(x, labels))
    scaled = linear_probe(*split(torch.cat([x * torch.logspace(-3, 3, 12) + 5, dead], dim=1), labels))
    assert scaled.value == pytest.approx(plain.value, abs=0.03)


def test_labels_need_not_count_from_zero():
    train_x, train_y, test_x, test_y = split(*classes())
    shifted = linear_probe(train_x, 10 * train_y + 3, test_x, 10 * test_y + 3)
    assert shifted == linear_probe(train_x, train_y, test_x, test_y)


def test_a_class_that_only_the_test_split_has_is_an_error_of_the_probe():
    train_x, train_y, test_x, test_y = split(*classes())
    assert linear_probe(train_x, train_y, test_x, torch.full_like(test_y, 7)).value == 0.0


def test_features_may_come_from_inference_mode():
    with torch.inference_mode():
        problem = split(*classes())
        inside = linear_probe(*problem)
    assert inside == linear_probe(*problem)


@pytest.mark.parametrize("probe", [linear_probe, linear_regression_probe])
def test_the_test_split_plays_no_part_in_the_choice(probe):
    train_x, train_y, test_x, test_y = split(*classes(distance=1.0))
    honest = probe(train_x, train_y, test_x, test_y)
    shuffled = probe(train_x, train_y, test_x, test_y.flip(0))
    other = probe(train_x, train_y, torch.randn_like(test_x), test_y)
    assert honest.value != shuffled.value
    assert honest.strength == shuffled.strength == other.strength
    assert honest.validation == shuffled.validation == other.validation


@pytest.mark.parametrize("probe", [linear_probe, linear_regression_probe])
def test_a_seed_gives_the_same_result_and_leaves_the_global_state_alone(probe):
    problem = split(*classes(distance=1.0))
    state = torch.get_rng_state()
    assert probe(*problem, seed=3) == probe(*problem, seed=3)
    assert probe(*problem, seed=3).validation != probe(*problem, seed=4).validation
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("probe", [linear_probe, linear_regression_probe])
def test_the_inputs_are_left_alone(probe):
    problem = split(*classes())
    copies = [values.clone() for values in problem]
    probe(*problem)
    assert all(torch.equal(values, copy) for values, copy in zip(problem, copies, strict=True))


def test_strong_regularisation_is_chosen_where_features_outnumber_samples():
    x, labels = classes(samples=120, size=600, distance=2.0)
    assert linear_probe(*split(x, labels), strengths=(1e-6, 1.0)).strength == 1.0


def test_linear_factors_are_read():
    x = torch.randn(300, 10)
    result = linear_regression_probe(*split(x, x[:, :2] * 40 + 7))
    assert result.value > 0.999
    assert result.metric == "r2"


def test_unrelated_factors_are_not():
    assert linear_regression_probe(*split(torch.randn(600, 10), torch.randn(600))).value < 0.1


@pytest.mark.parametrize("size", [15, 400])  # fewer and more features than samples
def test_r2_is_that_of_scikit_learn(size):
    x = torch.randn(300, size)
    problem = split(x, x[:, :3] + torch.randn(300, 3))
    result = linear_regression_probe(*problem, strengths=(0.3,))
    train_x, train_y, test_x, test_y = (values.double() for values in problem)
    scale, shift = train_x.std(0, correction=0), train_x.mean(0)
    oracle = Ridge(alpha=0.3 * len(train_x)).fit((train_x - shift) / scale, train_y)
    assert result.value == pytest.approx(oracle.score((test_x - shift) / scale, test_y), abs=1e-4)


@pytest.mark.parametrize("probe", [linear_probe, linear_regression_probe])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_x": torch.rand(19, 3)}, "training split"),
        ({"test_x": torch.rand(20, 3, 2)}, "test split"),
        ({"test_x": torch.rand(20, 4)}, "3 and 4 columns"),
        ({"train_x": torch.rand(9, 3), "train_y": torch.zeros(9)}, "at least 10"),
        ({"train_x": torch.full((20, 3), torch.inf)}, "train_x holds NaN or infinite"),
        ({"strengths": ()}, "strengths"),
        ({"strengths": (0.0,)}, "above 0"),
    ],
)
def test_mistakes_are_named(probe, change, message):
    arguments = {
        "train_x": torch.rand(20, 3),
        "train_y": torch.arange(20) % 2,
        "test_x": torch.rand(20, 3),
        "test_y": torch.arange(20) % 2,
    }
    with pytest.raises(UsageError, match=message):
        probe(**(arguments | change))


def test_one_class_is_a_mistake():
    with pytest.raises(UsageError, match="single class"):
        linear_probe(torch.rand(20, 3), torch.ones(20), torch.rand(20, 3), torch.ones(20))
