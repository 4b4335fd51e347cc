import pytest
import torch

from hf_infomax.evaluation.finetuning import finetune
from hf_infomax.models.errors import UsageError

OPTIONS = {"epochs": 6, "average": 2, "batch_size": 16, "learning_rate": 1e-2, "progress": False}


@pytest.fixture
def problem():
    """Dark and bright images."""
    labels = torch.arange(2).repeat(30)
    images = torch.randint(100, (60, 3, 16, 16)) + 100 * labels.view(-1, 1, 1, 1)
    images = images.to(torch.uint8)
    return images[:40], labels[:40], images[40:], labels[40:]


@pytest.mark.parametrize("layer", ["conv", "y"])
def test_it_learns_and_the_callers_model_stays(model, problem, layer):
    model.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    result = finetune(model, *problem, layer=layer, **OPTIONS)
    assert result.value > 0.9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_repeats(model, problem):
    first, again = (finetune(model, *problem, labels_per_class=5, **OPTIONS | {"epochs": 2}) for _ in range(2))
    assert first == again
    assert first.settings["labels_per_class"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "fc"}, "Unknown layer 'fc': choose one of conv"),
        ({"precision": "fp16"}, "'fp16'"),
        ({"labels_per_class": 21}, "from 1 to 20"),
        ({"average": 9}, "last 9 of 6"),
    ],
)
def test_mistakes_are_named(model, problem, options, message):
    with pytest.raises(UsageError, match=message):
        finetune(model, *problem, **(OPTIONS | options))


def test_images_and_labels_must_fit(model, problem):
    train, train_y, test, test_y = problem
    with pytest.raises(UsageError, match="40 images and 39 labels"):
        finetune(model, train, train_y[1:], test, test_y)
    with pytest.raises(UsageError, match="squares of one size"):
        finetune(model, train, train_y, test[..., :8], test_y)
