import pytest
import torch

from hf_infomax import InfoMinForPreTraining, PreTrainingOutput, UsageError
from hf_infomax.models.queue_state import QueueState

IMAGES = 40


@pytest.fixture
def build(infomin_config):
    def make(num_samples=IMAGES, **options):
        model = InfoMinForPreTraining(infomin_config("moco_v2", key_group=4, **options))
        return model, model.training_state(num_samples, torch.device("cpu"))

    return make


def shown(index):
    """Two augmentations of images, the same whenever an image comes."""
    images = torch.stack([torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in index.tolist()])
    return {"pixel_values": images, "sample_index": index}


def batches(size=6):
    return (shown(index) for index in torch.arange(IMAGES).split(size))


def step(model, state, number, index):
    output = model(**shown(index), state=state)
    model.zero_grad()
    output.loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    state.after_step(output, number)
    return output


def test_the_queue_is_filled_with_keys_before_the_first_step(build):
    model, state = build(queue_fill="forward", queue_size=16)
    asked = []

    def counted():
        for batch in batches():
            asked.append(batch["sample_index"].tolist())
            yield batch

    state.before_epoch(0, model, counted)
    queue = state.queues["RGB"]
    assert queue.filled == 16
    assert len(asked) == 3  # no more than it takes
    assert sorted(queue.samples.tolist()) == list(range(2, 18))
    with torch.no_grad():  # by the copy, in training mode, from the last augmentation
        keys = model.embed(shown(torch.arange(12, 18))["pixel_values"][:, 1])
    rows = torch.stack([queue.rows[queue.samples == sample].squeeze(0) for sample in range(12, 18)])
    torch.testing.assert_close(rows, keys)
    state.before_epoch(1, model, counted)
    assert len(asked) == 3


def test_with_few_images_the_queue_is_filled_as_far_as_they_go(build):
    model, state = build(queue_fill="forward", queue_size=100)
    state.before_epoch(0, model, batches)
    assert state.queues["RGB"].filled == IMAGES


@pytest.mark.parametrize("samples", [IMAGES, None])
def test_a_queue_that_grows_has_no_negatives_at_first(build, samples):
    model, state = build(samples, queue_fill="grow" if samples else "forward")  # a stream can do nothing else
    state.before_epoch(0, model, lambda: pytest.fail("nothing is to be shown"))
    first = step(model, state, 0, torch.arange(8))
    assert first.bound == 0
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert state.queues["RGB"].filled == 8
    assert step(model, state, 1, torch.arange(8, 16)).bound != 0


def test_what_is_enqueued_are_the_keys_that_were_the_positives(build):
    model, state = build()
    step(model, state, 0, torch.arange(8))
    output = model(**shown(torch.arange(8, 14)), state=state)
    state.after_step(output, 1)
    queue = state.queues["RGB"]
    assert queue.samples[8:14].tolist() == list(range(8, 14))
    torch.testing.assert_close(queue.rows[8:14], output.embeddings["RGB"])


def test_the_copy_follows_once_a_step_of_the_optimizer(build):
    model, state = build(encoder_momentum=0.5)
    output = model(**shown(torch.arange(6)), state=state)
    before = [parameter.clone() for parameter in state.copy.model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0
    for _ in range(3):  # three batches, whose gradients are accumulated
        state.after_step(output, 0)
    for key, old in zip(state.copy.model.parameters(), before, strict=True):
        torch.testing.assert_close(key, old + 0.5)
    state.after_step(output, 1)
    for key, old in zip(state.copy.model.parameters(), before, strict=True):
        torch.testing.assert_close(key, old + 0.75)


@pytest.mark.parametrize("norm", ["shuffle", "running"])
def test_it_goes_on_to_the_last_bit(build, tmp_path, norm):
    options = {"queue_fill": "forward", "key_norm": norm}
    model, state = build(**options)
    state.before_epoch(0, model, batches)
    for number in range(3):
        step(model, state, number, torch.arange(6) + number)
    state.save(tmp_path)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin, resumed = build(**options)
    twin.load_state_dict(weights)
    resumed.load(tmp_path)
    resumed.before_epoch(0, twin, lambda: pytest.fail("it was filled before"))
    for number in range(3, 6):
        losses = [step(one, of, number, torch.arange(6) + number).loss for one, of in ((model, state), (twin, resumed))]
        assert losses[0].equal(losses[1])
    for name, tensor in state.copy.model.state_dict().items():
        assert resumed.copy.model.state_dict()[name].equal(tensor), name
    assert resumed.queues["RGB"].rows.equal(state.queues["RGB"].rows)
    assert resumed.queues["RGB"].pointer == state.queues["RGB"].pointer


def test_a_copy_without_a_queue(build, tmp_path):
    model, state = build(negatives="batch")
    assert isinstance(state, QueueState)
    assert state.queues == {}
    state.before_epoch(0, model, lambda: pytest.fail("there is nothing to fill"))
    output = step(model, state, 0, torch.arange(6))
    assert isinstance(output, PreTrainingOutput)
    state.save(tmp_path)
    state.load(tmp_path)


def test_a_bank_and_a_queue_do_not_go_on_from_each_other(build, infomin_config, tmp_path):
    _, queue = build()
    model = InfoMinForPreTraining(infomin_config("pirl"))
    bank = model.training_state(IMAGES, torch.device("cpu"))
    for name, state in (("bank", bank), ("queue", queue)):
        (tmp_path / name).mkdir()
        state.save(tmp_path / name)
    with pytest.raises(UsageError, match="has no momentum copy, and the recipe asks for one"):
        queue.load(tmp_path / "bank")
    with pytest.raises(UsageError, match="has no memory bank, and the recipe asks for one"):
        bank.load(tmp_path / "queue")


def test_an_unknown_fill_is_one_sentence(build):
    with pytest.raises(UsageError, match="Unknown queue_fill 'random': choose one of forward, grow"):
        build(queue_fill="random")
