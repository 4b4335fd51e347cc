import pytest
import torch

from hf_infomax.evaluation.few_labels import draw_per_class, few_labels_curve
from hf_infomax.models.errors import UsageError


@pytest.fixture
def problem():
    labels = torch.arange(4).repeat(60)
    x = 2 * torch.eye(4, 8)[labels] + torch.randn(240, 8)
    return x[:160], labels[:160], x[160:], labels[160:]


def test_a_draw_has_so_many_of_each_class_and_contains_the_smaller_one():
    labels = torch.randint(3, (90,))
    few, more = (draw_per_class(labels, count, seed=2) for count in (2, 9))
    assert labels[few].bincount().tolist() == [2, 2, 2]
    assert len(set(more.tolist())) == 27
    assert set(few.tolist()) < set(more.tolist())
    assert set(few.tolist()) != set(draw_per_class(labels, 2, seed=3).tolist())


def test_more_labels_tell_more(problem):
    points = few_labels_curve(*problem, counts=(1, 5, 40, 41), seeds=(0, 1, 2))
    assert [point.labels_per_class for point in points] == [1, 5, 40]  # 41 are not there
    assert points[0].value < points[1].value < points[2].value
    assert points[0].value == pytest.approx(sum(points[0].values) / 3)
    assert points[0].std == pytest.approx(torch.tensor(points[0].values).std().item(), abs=1e-6)


def test_a_single_seed_has_no_deviation(problem):
    assert few_labels_curve(*problem, counts=(2,), seeds=(7,))[0].std is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"counts": (41,)}, "from 1 to 40"), ({"seeds": ()}, "seeds"), ({"strengths": ()}, "strengths")],
)
def test_mistakes_are_named(problem, options, message):
    with pytest.raises(UsageError, match=message):
        few_labels_curve(*problem, **options)


def test_a_draw_needs_as_many():
    with pytest.raises(UsageError, match="3 labels per class cannot be drawn: choose from 1 to 2"):
        draw_per_class(torch.tensor([0, 0, 1, 1, 1]), 3, seed=0)
