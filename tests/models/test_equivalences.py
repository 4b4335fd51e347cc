"""The equivalences of Wu et al. 2020: IR, SimCLR, CMC, BALL, ANN and LA as the papers write them, in loops, against this
package."""

import math

import pytest
import torch
from torch.nn import functional as F

from hf_infomax import CMCForPreTraining, InstDiscForPreTraining
from hf_infomax.models.bank import MemoryBank
from hf_infomax.models.bounds import infonce
from hf_infomax.models.critics import Cosine
from hf_infomax.models.negatives import FromBank, InBatch
from hf_infomax.models.regions import Ball

N, D, OMEGA = 30, 10, 0.2
INDEX = torch.tensor([7, 22, 0, 29, 12, 3])


def log_p(samples, x, bank):
    """log p(I | x, M), eq. 1 and 2: a softmax over the whole bank, and a sum over samples."""
    h = [math.exp(x.double() @ m.double() / OMEGA) for m in bank]
    return math.log(sum(h[j] for j in samples) / sum(h))


def instance_discrimination(x, bank, index):
    """Eq. 1, the mean over images."""
    return sum(log_p([i], x[place], bank) for place, i in enumerate(index.tolist())) / len(index)


def simclr(x, others):
    """Eq. 4 of two views of each image of a batch: the denominator runs over the B of the other view."""
    total = 0.0
    for i in range(len(x)):
        h = [math.exp(x[i].double() @ other.double() / OMEGA) for other in others]
        total += math.log(h[i] / sum(h)) / len(x)
    return total


def nt_xent(x, others):
    """Chen et al. 2020, eq. 1: the denominator runs over all 2 B views but the anchor itself."""
    views, batch, total = torch.cat([x, others]).double(), len(x), 0.0
    for i in range(2 * batch):
        h = [0.0 if j == i else math.exp(views[i] @ views[j] / OMEGA) for j in range(2 * batch)]
        total += math.log(h[(i + batch) % (2 * batch)] / sum(h)) / (2 * batch)
    return total


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


# Lemma 3.1


def test_ir_simclr_and_half_of_cmc_are_infonce_less_log_n():
    x, bank, everyone = unit(N, D), MemoryBank(N, D), torch.arange(N)
    candidates = Ball(N - 1)({"M": bank}, everyone, torch.Generator())["M"]  # all others
    information = infonce(*FromBank(bank, everyone, candidates)(Cosine(OMEGA), None, x)).item() - math.log(N)
    assert information == pytest.approx(instance_discrimination(x, bank.rows, everyone), abs=1e-5)  # eq. 1
    assert information == pytest.approx(simclr(x, bank.rows), abs=1e-5)  # eq. 4
    swapped = [(x, bank.rows), (x, bank.rows)]  # eq. 3: lum against M_ab, ab against M_lum, with the same scores
    cmc = sum(instance_discrimination(view, other, everyone) for view, other in swapped)
    assert information == pytest.approx(cmc / 2, abs=1e-5)
    in_batch = infonce(*InBatch()(Cosine(OMEGA), bank.rows.unsqueeze(1), x)).item() - math.log(N)
    assert information == pytest.approx(in_batch, abs=1e-5)


def test_eq_4_is_not_nt_xent():
    x, others = unit(8, D), unit(8, D)
    both_ways = (simclr(x, others) + simclr(others, x)) / 2
    assert nt_xent(x, others) < both_ways - 0.1  # of 2 B - 2 negatives
    blind = torch.ones(8, 1)
    assert simclr(blind, blind) == pytest.approx(-math.log(8))
    assert nt_xent(blind, blind) == pytest.approx(-math.log(15))


@pytest.fixture
def build(instdisc_config):
    """A model in evaluation, its training state, and what it says of the batch: unit vectors (6, D)."""

    def make(images, preset, **options):
        model = InstDiscForPreTraining(instdisc_config(preset, temperature=OMEGA, **options)).eval()
        state = model.training_state(N, torch.device("cpu"))
        if state:
            state.before_epoch(0, model, list)
        with torch.no_grad():
            return model, state, model.embeddings(images)["RGB"]

    return make


def run(model, images, state):
    with torch.no_grad():
        return model(images, state=state, sample_index=INDEX)


def test_the_model_with_all_other_samples_is_ir(build, images):
    model, state, x = build(images, "ball", ball_size=N - 1, num_negatives=None)
    output = run(model, images, state)
    expected = instance_discrimination(x, state.banks["RGB"].rows, INDEX) + math.log(N)
    assert output.loss.item() == pytest.approx(-expected, abs=1e-5)
    assert [output.parts[name].item() for name in ("1->bank", "vince")] == pytest.approx([expected] * 2, abs=1e-5)


def test_the_model_on_two_augmentations_is_simclr_in_both_directions(build, images):
    pixel_values = torch.stack([images, torch.rand_like(images)], dim=1)
    model, _, _ = build(pixel_values, "simclr")
    with torch.no_grad():
        output = model(pixel_values)
        first, second = (F.normalize(model.head(model.features(view)), dim=1) for view in (images, pixel_values[:, 1]))
    expected = {"1->2": simclr(first, second) + math.log(6), "2->1": simclr(second, first) + math.log(6)}
    assert {name: part.item() for name, part in output.parts.items()} == pytest.approx(expected, abs=1e-5)
    assert output.loss.item() == pytest.approx(-sum(expected.values()) / 2, abs=1e-5)
    assert output.bound.item() == pytest.approx(sum(expected.values()) / 2, abs=1e-5)


def test_cmc_with_all_other_samples_is_two_ir_terms_with_swapped_banks(cmc_config, images):
    config = cmc_config(negatives="ball", ball_size=N - 1, bank_fill="random", temperature=OMEGA)
    model = CMCForPreTraining(config).eval()
    state = model.training_state(N, torch.device("cpu"))
    state.before_epoch(0, model, list)
    x = {view: F.normalize(vectors, dim=1) for view, vectors in model.embeddings(images).items()}
    banks = {view: bank.rows for view, bank in state.banks.items()}
    terms = instance_discrimination(x["L"], banks["ab"], INDEX), instance_discrimination(x["ab"], banks["L"], INDEX)
    assert run(model, images, state).loss.item() == pytest.approx(-sum(terms) - 2 * math.log(N), abs=1e-5)


# Lemma 5.1


def background(state, i, size=12):
    """B_i without the image itself: the `size` nearest to M[i]."""
    rows = state.banks["RGB"].rows
    others = [j for j in range(N) if j != i]
    return sorted(others, key=lambda j: -(rows[i] @ rows[j]).item())[:size]


def close_to(state, i):
    """C_i, by the table of the state."""
    return {j for j in range(N) if j != i and state.close["RGB"].among(torch.tensor([i]), torch.tensor([[j]])).item()}


def restricted(x, state, annulus):
    """log p(i) / p(S_i) + log |S_i|, where S_i is B_i or B_i without C_i, and the positive: VINCE."""
    total, rows = 0.0, state.banks["RGB"].rows
    for place, i in enumerate(INDEX.tolist()):
        near = close_to(state, i) if annulus else set()
        region = [i, *(j for j in background(state, i) if j not in near)]
        assert annulus == (len(region) < 13)  # or nothing was left out
        total += (log_p([i], x[place], rows) - log_p(region, x[place], rows) + math.log(len(region))) / len(INDEX)
    return total


def test_ball_is_vince(build, images):
    model, state, x = build(images, "ball", num_negatives=None)
    output = run(model, images, state)
    expected = restricted(x, state, annulus=False)
    assert output.loss.item() == pytest.approx(-expected, abs=1e-5)
    assert output.parts["vince"].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "options", [{"close_neighbors": "clusters", "num_clusters": 8}, {"close_neighbors": "nearest"}]
)
def test_ann_with_its_positive_is_vince(build, images, options):
    model, state, x = build(images, "ann", num_negatives=None, **options)
    output = run(model, images, state)
    expected = restricted(x, state, annulus=True)
    assert output.loss.item() == pytest.approx(-expected, abs=1e-5)
    assert output.parts["vince"].item() == pytest.approx(expected, abs=1e-5)


def test_ann_as_it_is_printed_is_no_bound(build, images):
    """i is in C_i, so that B_i without C_i has no positive: what remains is not InfoNCE, and has no ceiling."""
    model, state, x = build(images, "ann", num_negatives=None, close_neighbors="nearest", num_neighbors=5)
    bank = state.banks["RGB"]
    bank.update(INDEX, x, momentum=0.0)  # an encoder that knows its images
    state.close["RGB"].refresh(bank, 0)
    printed = []
    for place, i in enumerate(INDEX.tolist()):
        region = [j for j in background(state, i) if j not in close_to(state, i)]
        value = log_p([i], x[place], bank.rows) - log_p(region, x[place], bank.rows) + math.log(len(region))
        printed.append((value, math.log(len(region) + 1)))
    output = run(model, images, state)
    ceilings = [ceiling for _, ceiling in printed]
    assert -output.loss.item() < sum(ceilings) / 6
    assert sum(value for value, _ in printed) / 6 > -output.loss.item() + 0.1
    assert any(value > ceiling for value, ceiling in printed)
    # The exact difference, for one and the same scores.
    scores = torch.tensor([[30.0, 0.0, 1.0]])
    assert (scores[0, 0] - scores[0, 1:].logsumexp(0) + math.log(2)).item() > math.log(3)
    assert infonce(scores[:, 0], scores[:, 1:]).item() == pytest.approx(math.log(3))


# Local Aggregation


def test_la_is_eq_2(build, images):
    model, state, x = build(images, "la", num_negatives=None, num_clusters=5, warmup_epochs=0)
    output = run(model, images, state)
    rows, expected, separately = state.banks["RGB"].rows, 0.0, 0.0
    for place, i in enumerate(INDEX.tolist()):
        region = [i, *background(state, i)]
        positives = [j for j in region if j == i or j in close_to(state, i)]
        log_mean = log_p(region, x[place], rows) - math.log(13)
        expected += (log_p(positives, x[place], rows) - log_mean) / 6
        separately += sum(log_p([j], x[place], rows) - log_mean for j in positives) / len(positives) / 6
    assert output.loss.item() == pytest.approx(-expected, abs=1e-5)
    assert output.parts["vince"].item() == pytest.approx(separately, abs=1e-5)
    assert separately < expected


def test_la_whose_neighbourhoods_are_the_images_themselves_is_ball(build, images):
    """Lemma 5.2."""
    la, state, x = build(images, "la", num_negatives=None, warmup_epochs=0)
    state.close["RGB"].table = torch.arange(N, dtype=torch.int32).unsqueeze(1).repeat(1, 2)
    assert run(la, images, state).loss.item() == pytest.approx(-restricted(x, state, annulus=False), abs=1e-5)
