import math

import pytest
import torch
from torch.nn import functional as F

from hf_infomax import CMCForPreTraining, UsageError
from hf_infomax.models.bounds import log_partition

N = 20


@pytest.fixture
def build(cmc_config):
    def make(**options):
        settings = {"negatives": "bank", "num_negatives": 8, **options}
        model = CMCForPreTraining(cmc_config(**settings))
        return model, model.training_state(N, torch.device("cpu"))

    return make


@pytest.fixture
def data():
    return torch.rand(N, 3, 32, 32)


def batches(data):
    for index in torch.randperm(len(data))[:18].chunk(3):  # the last incomplete batch is dropped
        yield {"pixel_values": data[index], "sample_index": index}


def test_a_forward_pass_fills_the_banks_before_the_first_step(build, data):
    model, state = build()
    model.eval()
    state.before_epoch(0, model, lambda: batches(data))
    assert {bank.valid.sum().item() for bank in state.banks.values()} == {18}
    for view, vectors in model.embeddings(data).items():
        bank = state.banks[view]
        torch.testing.assert_close(bank.rows[bank.valid], F.normalize(vectors, dim=1)[bank.valid], rtol=1e-4, atol=1e-5)
    before = state.banks["L"].rows.clone()
    state.before_epoch(1, model, lambda: pytest.fail("filled twice"))
    assert torch.equal(state.banks["L"].rows, before)


def test_random_rows_are_left_to_the_run(build):
    _, state = build(bank_fill="random")
    state.before_epoch(0, None, lambda: pytest.fail("no forward pass was asked for"))
    assert state.banks["L"].whole
    assert not torch.equal(state.banks["L"].rows, state.banks["ab"].rows)


def test_a_step_moves_the_rows_of_its_batch_alone(build, data):
    model, state = build(bank_fill="random")
    index = torch.tensor([4, 11, 2])
    old = state.banks["ab"].rows.clone()
    output = model(data[index], state=state, sample_index=index)
    assert torch.equal(state.banks["ab"].rows, old)  # the backward pass still needs them
    state.after_step(output, 1)
    new = F.normalize(0.5 * old[index] + 0.5 * F.normalize(output.embeddings["ab"], dim=1), dim=1)
    torch.testing.assert_close(state.banks["ab"].rows[index], new)
    others = [sample for sample in range(N) if sample not in index.tolist()]
    assert torch.equal(state.banks["ab"].rows[others], old[others])


def test_z_is_a_running_mean(build):
    _, state = build(bound="nce", z_momentum=0.9)
    first, second = torch.randn(4, 1, 8), torch.randn(4, 1, 8)
    z = [log_partition(scores, N).exp().item() for scores in (first, second)]
    assert state.running_log_z("L->ab", first).item() == pytest.approx(math.log(z[0]), abs=1e-5)
    assert state.running_log_z("L->ab", second).item() == pytest.approx(math.log(0.9 * z[0] + 0.1 * z[1]), abs=1e-5)
    assert state.running_log_z("ab->L", second).item() == pytest.approx(math.log(z[1]), abs=1e-5)


def test_a_saved_state_goes_on_with_the_same_draws(build, data, tmp_path):
    model, state = build(bound="nce", bank_fill="random")
    index = torch.arange(6)
    state.after_step(model(data[index], state=state, sample_index=index), 1)
    state.save(tmp_path / "state")
    _, resumed = build(bound="nce")
    resumed.load(tmp_path / "state")
    assert not resumed.to_fill
    model.eval()
    losses = [model(data[index], state=one, sample_index=index).loss for one in (state, resumed)]
    assert torch.equal(*losses)
    assert state.log_z["L->ab"].item() == pytest.approx(resumed.log_z["L->ab"].item(), abs=1e-6)


def test_every_step_draws_anew_and_every_view_the_same(build):
    _, state = build()
    one, other = state.negatives(torch.arange(5)), state.negatives(torch.arange(5))
    assert torch.equal(one["L"].candidates, one["ab"].candidates)
    assert not torch.equal(one["L"].candidates, other["L"].candidates)


def test_mistakes_are_one_sentence(build, data):
    model, state = build()
    with pytest.raises(UsageError, match=r"^A memory bank needs sample_index, .* the batch has none\.$"):
        model(data[:4], state=state)
    with pytest.raises(UsageError, match=r"^sample_index 20 is outside the memory bank of 20 samples"):
        model(data[:4], state=state, sample_index=torch.tensor([0, 1, 2, 20]))
    with pytest.raises(UsageError, match=r"^negatives='bank' needs state=model\.training_state"):
        model(data[:4], sample_index=torch.arange(4))
    with pytest.raises(UsageError, match=r"^A memory bank has a row for each image, and a stream has no index"):
        model.training_state(None, torch.device("cpu"))
    with pytest.raises(UsageError, match=r"^num_negatives=20 other samples cannot be drawn from 20: choose 1 to 19\.$"):
        build(num_negatives=20)
    with pytest.raises(UsageError, match="Unknown bank_fill 'zeros': choose one of forward, random"):
        build(bank_fill="zeros")
    with pytest.raises(UsageError, match="Unknown bank_positive 'both': choose one of bank, batch"):
        build(bank_positive="both")
