import pytest
import torch

from hf_infomax.evaluation import splits
from hf_infomax.models.errors import UsageError


def test_a_class_that_only_the_test_split_has_is_never_right():
    labels, test_labels, classes = splits.number_classes(torch.tensor([5, 2, 5]), torch.tensor([9, 2, 3, 5]))
    assert labels.tolist() == [1, 0, 1]
    assert test_labels.tolist() == [-1, 0, -1, 1]
    assert classes.tolist() == [2, 5]


@pytest.mark.parametrize("labels", [torch.tensor([0.5, 1.0]), torch.tensor([torch.nan, 1.0]), torch.eye(2)])
def test_labels_that_are_not_integers_are_named(labels):
    with pytest.raises(UsageError, match="not one integer for each sample"):
        splits.number_classes(labels, torch.tensor([0, 1]))


def test_an_epoch_deals_out_every_sample_once():
    batches = list(splits.shuffled_batches(10, 4, torch.device("cpu")))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.cat(batches).sort().values.tolist() == list(range(10))


def test_the_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    with splits.seeded(1, torch.device("cpu")):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
