import json
import math

import pytest
import torch
from torch.nn import functional as F

from hf_infomax import CMCForPreTraining, InstDiscForPreTraining, UsageError
from hf_infomax.models.bounds import log_partition
from hf_infomax.models.neighbors import Clusters, Nearest

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
    assert torch.equal(one["L"].candidates.index, one["ab"].candidates.index)
    assert not torch.equal(one["L"].candidates.index, other["L"].candidates.index)


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


# Regions and close neighbours

NEAREST = {"close_neighbors": "nearest", "ball_size": 9, "num_negatives": 6}


@pytest.fixture
def discriminate(instdisc_config):
    def make(preset, **options):
        torch.manual_seed(1)
        model = InstDiscForPreTraining(instdisc_config(preset, **{**NEAREST, **options})).eval()
        return model, model.training_state(N, torch.device("cpu"))

    return make


@pytest.fixture
def refreshed(monkeypatch):
    """The epochs whose neighbours were looked for."""
    epochs, whole = [], Nearest.refresh

    def refresh(self, bank, epoch):
        epochs.append(epoch)
        whole(self, bank, epoch)

    monkeypatch.setattr(Nearest, "refresh", refresh)
    return epochs


def step(model, state, data, index, number=1):
    output = model(data[index], state=state, sample_index=index)
    state.after_step(output, number)
    return output


def nearest_three(rows):
    """The three samples nearest to each, the nearest first."""
    return (rows @ rows.T).fill_diagonal_(-math.inf).topk(3).indices


@pytest.mark.parametrize("preset", ["ann", "la"])
@pytest.mark.parametrize("steps", [1, 4])
def test_neighbours_are_found_before_the_first_step_of_every_epoch(discriminate, data, refreshed, preset, steps):
    model, state = discriminate(preset, warmup_epochs=0)
    for epoch in range(3):
        state.before_epoch(epoch, model, list)
        assert refreshed == list(range(epoch + 1))
        expected = nearest_three(state.banks["RGB"].rows)
        for number in range(steps):
            step(model, state, data, torch.randperm(N)[:6], number)
            assert torch.equal(state.close["RGB"].table, expected.int())  # the rows have moved, the table has not
    assert state.images == 3 * steps * 6
    assert not torch.equal(nearest_three(state.banks["RGB"].rows), expected)


def test_every_view_has_neighbours_of_its_own(cmc_config, data, refreshed):
    model = CMCForPreTraining(cmc_config(negatives="annulus", bank_fill="random", num_neighbors=3, **NEAREST))
    state = model.training_state(N, torch.device("cpu"))
    state.before_epoch(0, model, list)
    assert refreshed == [0, 0]
    for view, bank in state.banks.items():
        assert torch.equal(state.close[view].table, nearest_three(bank.rows).int())


def test_the_banks_are_filled_before_neighbours_are_found(discriminate, data):
    model, state = discriminate("ann", bank_fill="forward")
    state.before_epoch(0, model, lambda: [{"pixel_values": data, "sample_index": torch.arange(N)}])
    assert torch.equal(state.close["RGB"].table, nearest_three(model.embeddings(data)["RGB"]).int())


@pytest.mark.parametrize("preset", ["ball", "ball+", "ann+", "la"])
def test_a_warm_up_has_the_marginal_and_the_own_positive(discriminate, data, refreshed, preset):
    model, state = discriminate(preset, warmup_epochs=2)
    index = torch.arange(6)
    for epoch in range(3):
        state.before_epoch(epoch, model, list)
        assert state.warming_up == (epoch < 2)
        sampler = state.negatives(index)["RGB"]
        positive, _ = sampler(model.critic, None, torch.randn(6, 10))
        candidates, parts = sampler.candidates, step(model, state, data, index).parts
        if epoch < 2:
            assert candidates.index.shape == (6,)  # shared by the batch, as many as the region has
            assert (candidates.close, candidates.marginal) == (None, None)
            assert positive.shape == (6, 1)
            assert set(parts) == {"1->bank"}
        else:
            assert candidates.index.shape == (6, 6)
            assert (candidates.close is None) == preset.startswith("ball")
            assert positive.shape == (6, 7 if preset == "la" else 1)
            assert set(parts) == {"1->bank", "vince", "infonce", "vince_holds", "vince_below"}
    assert refreshed == ([] if preset.startswith("ball") else [2])


def test_a_warm_up_draws_from_all_samples(discriminate):
    _, state = discriminate("la", warmup_epochs=1)
    state.before_epoch(0, None, list)
    seen = {j for _ in range(60) for j in state.negatives(torch.arange(6))["RGB"].candidates.index.tolist()}
    assert seen == set(range(N))


@pytest.mark.parametrize("preset", ["ball", "ann", "la"])
def test_without_a_warm_up_the_region_has_its_turn_from_the_first_step(discriminate, preset):
    """Also where nobody has begun an epoch: a region is never passed over in silence."""
    _, state = discriminate(preset, warmup_epochs=0)
    assert not state.warming_up
    if preset == "ball":
        assert state.negatives(torch.arange(6))["RGB"].candidates.marginal is not None
    else:
        with pytest.raises(UsageError, match=r"^Close neighbours have not been found yet: call state\.before_epoch"):
            state.negatives(torch.arange(6))


@pytest.mark.parametrize("warmup", [0, 1])
def test_annealing_goes_by_the_images_that_were_shown_since_the_warm_up(discriminate, data, warmup, monkeypatch):
    model, state = discriminate("ann+", ball_size=11, anneal_epochs=2, warmup_epochs=warmup)
    sizes, shares, samples, among = [], [], state.region.samples, Nearest.among
    monkeypatch.setattr(state.region, "samples", lambda *asked: sizes.append(samples(*asked)) or sizes[-1])
    monkeypatch.setattr(Nearest, "among", lambda *asked: shares.append(asked[-1]) or among(*asked))
    for epoch in range(warmup + 3):
        state.before_epoch(epoch, model, list)
        for _ in range(2):
            step(model, state, data, torch.randperm(N)[:10])  # half an epoch
    assert state.images == (warmup + 3) * N
    assert sizes == [19, 17, 15, 13, 11, 11]
    assert shares == [0, 0.25, 0.5, 0.75, 1, 1]


RESUMED = {
    "ball": {},
    "ann": {},
    "ann with clusters": {"close_neighbors": "clusters", "num_clusters": 6, "ball_size": 19, "num_negatives": None},
    "la": {"anneal": "cosine", "anneal_epochs": 3, "warmup_epochs": 0},
    "ann+": {"anneal_epochs": 3},
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_is_resumed_in_an_epoch_goes_on_as_if_it_had_not_stopped(
    discriminate, data, tmp_path, monkeypatch, name
):
    preset = name.partition(" ")[0]
    model, state = discriminate(preset, **RESUMED[name])
    for epoch in range(2):
        state.before_epoch(epoch, model, list)
        for _ in range(2):
            step(model, state, data, torch.randperm(N)[:7])
    state.save(tmp_path / "state")
    _, resumed = discriminate(preset, **RESUMED[name])
    resumed.load(tmp_path / "state")
    assert (resumed.epoch, resumed.draws, resumed.images) == (1, 4, 28)
    assert torch.equal(resumed.banks["RGB"].rows, state.banks["RGB"].rows)
    if state.close:
        assert torch.equal(resumed.close["RGB"].table, state.close["RGB"].table)
    with monkeypatch.context() as patch:
        for kind in (Nearest, Clusters):
            patch.setattr(kind, "refresh", lambda *_: pytest.fail("the epoch's neighbours were known"))
        resumed.before_epoch(1, model, lambda: pytest.fail("the bank was filled"))
    for epoch in (1, 2):
        if epoch == 2:  # and both find the same new neighbours
            for one in (state, resumed):
                one.before_epoch(epoch, model, list)
        for _ in range(2):
            index = torch.randperm(N)[:7]
            losses = [step(model, one, data, index).loss for one in (state, resumed)]
            assert torch.equal(*losses)


def test_a_run_that_is_resumed_after_a_warm_up_finds_its_first_neighbours(discriminate, data, tmp_path, refreshed):
    model, state = discriminate("la", warmup_epochs=1)
    state.before_epoch(0, model, list)
    step(model, state, data, torch.arange(6))
    state.save(tmp_path / "state")
    _, resumed = discriminate("la", warmup_epochs=1)
    resumed.load(tmp_path / "state")
    resumed.before_epoch(0, model, list)
    assert refreshed == []
    assert resumed.warming_up
    resumed.before_epoch(1, model, list)
    assert refreshed == [1]
    assert not resumed.warming_up
    assert step(model, resumed, data, torch.arange(6)).loss.isfinite()


@pytest.mark.parametrize(
    ("preset", "options", "sentence"),
    [
        ("ball", {"ball_size": 20}, r"^ball_size=20 background neighbours cannot be found among 19 other samples"),
        ("ball", {"num_negatives": 10}, r"^num_negatives=10 cannot be drawn from a ball of 9 samples"),
        ("ann", {"num_neighbors": 20}, r"^num_neighbors=20 close neighbours cannot be found among 20 samples"),
        ("ann", {"close_neighbors": "clusters", "num_clusters": 21}, r"^num_clusters=21 clusters cannot be made of 20"),
        ("ball+", {"anneal_epochs": 0}, r"^anneal='linear' needs anneal_epochs"),
        ("ball", {"anneal": "slow", "anneal_epochs": 2}, r"^Unknown anneal 'slow': choose one of linear, cosine, step"),
    ],
)
def test_a_region_that_the_data_is_too_small_for_is_one_sentence(discriminate, preset, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        discriminate(preset, **options)


def test_a_run_without_neighbours_goes_on_with_them(discriminate, data, tmp_path, refreshed):
    model, state = discriminate("ir")
    state.before_epoch(0, model, list)
    step(model, state, data, torch.arange(6))
    state.save(tmp_path)
    _, resumed = discriminate("ann")
    resumed.load(tmp_path)
    resumed.before_epoch(0, model, lambda: pytest.fail("the bank was filled"))
    assert resumed.close["RGB"].table is not None


def test_an_older_state_says_less(discriminate, tmp_path):
    _, state = discriminate("ir")
    state.draws = 7
    state.save(tmp_path)
    record = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({k: v for k, v in record.items() if k not in ("images", "epoch")}))
    _, resumed = discriminate("ir")
    resumed.load(tmp_path)
    assert (resumed.draws, resumed.images, resumed.epoch) == (7, 0, -1)
