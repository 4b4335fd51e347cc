import math
import re

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from hf_infomax.models import negatives, regions
from hf_infomax.models.bank import MemoryBank
from hf_infomax.models.bounds import infonce
from hf_infomax.models.critics import Bilinear, Concat, Cosine, Critic, EncodeAndDot
from hf_infomax.models.errors import UsageError
from hf_infomax.models.key_queue import KeyQueue
from hf_infomax.models.negatives import FromBank, FromQueue, InBatch
from hf_infomax.models.regions import Ball, Candidates, Marginal, draw

IMAGES, LOCATIONS = 7, 3


class NamedPairs(Critic):
    """A critic whose score says what it was asked: 10,000 y's image + 100 x's image + x's location."""

    embed_x = torch.nn.Identity()

    def compare(self, x, y, candidates=None):
        images = torch.arange(len(x)) if candidates is None else candidates
        images = images.expand(len(y), -1)
        scores = 10_000 * torch.arange(len(y))[:, None, None] + 100 * images[..., None] + torch.arange(x.shape[1])
        return scores.double()


named_pairs = NamedPairs()


@pytest.fixture
def x():
    return torch.randn(IMAGES, LOCATIONS, 5)


@pytest.fixture
def y():
    return torch.randn(IMAGES, 4)


def check_pairs(positive, negative, num_negatives):
    """Every positive is its own image's; returns which images (B, num_negatives) serve each y."""
    assert positive.shape == (IMAGES, LOCATIONS)
    for i in range(IMAGES):
        assert positive[i].tolist() == [10_000 * i + 100 * i + location for location in range(LOCATIONS)]
    served = []
    for i, row in enumerate(negative[:, 0]):
        asked = [int(score) for score in row if score != -math.inf]
        assert {score // 10_000 for score in asked} == {i}
        images = {score % 10_000 // 100 for score in asked}
        assert i not in images
        assert sorted(asked) == sorted(10_000 * i + 100 * j + k for j in images for k in range(LOCATIONS))
        assert len(images) == num_negatives
        served.append(sorted(images))
    return served


def test_all_others_are_every_location_of_every_other_image(x, y):
    positive, negative = InBatch()(named_pairs, x, y)
    assert negative.shape == (IMAGES, 1, IMAGES * LOCATIONS)
    served = check_pairs(positive, negative, IMAGES - 1)
    assert served == [[j for j in range(IMAGES) if j != i] for i in range(IMAGES)]


@pytest.mark.parametrize("num_negatives", range(1, IMAGES))
def test_drawn_images_serve_equally_often_and_never_themselves(x, y, num_negatives):
    for _ in range(5):
        positive, negative = InBatch(num_negatives)(named_pairs, x, y)
        assert negative.shape == (IMAGES, 1, num_negatives * LOCATIONS)
        served = check_pairs(positive, negative, num_negatives)
        counts = torch.tensor(served).flatten().bincount(minlength=IMAGES)
        assert counts.tolist() == [num_negatives] * IMAGES


def test_draws_differ_from_call_to_call_and_reach_every_other_image(x, y):
    draws = {tuple(map(tuple, check_pairs(*InBatch(1)(named_pairs, x, y), 1))) for _ in range(100)}
    assert len(draws) == IMAGES - 1


@pytest.mark.parametrize("critic", [EncodeAndDot(5, 4, units=8), Concat(5, 4, units=8)])
def test_drawing_all_others_equals_masking_the_own_image(x, y, critic):
    masked, drawn = (infonce(*InBatch(k)(critic, x, y)) for k in (None, IMAGES - 1))
    torch.testing.assert_close(drawn, masked)
    gradients = [torch.autograd.grad(bound, list(critic.parameters())) for bound in (masked, drawn)]
    torch.testing.assert_close(*gradients)


def test_a_batch_of_one_has_no_negatives():
    for num_negatives in (None, 1):
        with pytest.raises(UsageError, match=r"^A batch of one image [^.]*\.$"):
            InBatch(num_negatives)(named_pairs, torch.randn(1, LOCATIONS, 5), torch.randn(1, 4))


class Sum(Critic):
    """A critic whose score is the name of y plus that of x."""

    embed_x = torch.nn.Identity()

    def compare(self, x, y, candidates=None):
        x = x.squeeze(-1).unsqueeze(0) if candidates is None else x.squeeze(-1)[candidates]
        return y.unsqueeze(-1) + x


@pytest.mark.parametrize("num_negatives", [None, 1, 3])
@pytest.mark.parametrize(
    "rows",
    [
        None,
        [[True, True, False], [False, True, True]],
        [[False, False, False], [True, True, True]],
        [[True, True, True], [False, True, False]],
        [[True, False, False], [False, False, True]],
        [[False, True, False], [False, False, False]],
        [[False] * 3, [False] * 3],
    ],
)
def test_each_of_two_processes_scores_its_own_images_against_all(monkeypatch, rows, num_negatives):
    x = (
        (10 * torch.arange(6)[:, None] + torch.arange(LOCATIONS)).unsqueeze(-1).double()
    )  # (6, L, 1): its image, its place
    y = 1000 * torch.arange(6).unsqueeze(-1).double()
    there = [True] * 6 if rows is None else rows[0] + rows[1]
    images = [image for image in range(6) if there[image]]
    count = (len(images) - 1) if num_negatives is None else num_negatives
    shifts, served = torch.randperm(max(len(images) - 1, 0)) + 1, []

    def gathered(part):
        return torch.tensor(there) if part.dtype == torch.bool else torch.cat([shifts, part])

    monkeypatch.setattr(negatives, "gather", gathered)
    monkeypatch.setattr(negatives, "gather_with_gradient", lambda part: x)
    for rank in (0, 1):
        monkeypatch.setattr(negatives, "world", lambda rank=rank: (rank, 2))
        half, own = slice(3 * rank, 3 * rank + 3), None if rows is None else torch.tensor(rows[rank])
        positive, negative = InBatch(num_negatives)(Sum(), x[half], y[half], own)
        anchors = [image for image in images if image // 3 == rank] if len(images) > max(count, 1) else []
        assert positive.shape == (len(anchors), LOCATIONS)
        assert negative.shape[:2] == (len(anchors), 1)
        for i, image in enumerate(anchors):
            assert positive[i].tolist() == [1010 * image + place for place in range(LOCATIONS)]
            others = sorted(score - 1000 * image for score in negative[i, 0].tolist() if score != -math.inf)
            asked = sorted({int(score) // 10 for score in others})
            assert others == [10 * other + place for other in asked for place in range(LOCATIONS)]
            assert len(asked) == count
            assert image not in asked
            served += asked
    assert sorted(served) == (sorted(count * images) if len(images) > max(count, 1) else [])


def test_half_of_a_batch_is_enough_where_there_are_two(monkeypatch):
    monkeypatch.setattr(negatives, "world", lambda: (0, 2))
    InBatch().require(1)
    InBatch(3).require(2)
    with pytest.raises(UsageError, match=r"^num_negatives=4 .* a batch of 4: choose 1 to 3, or none for all\.$"):
        InBatch(4).require(2)


@pytest.mark.parametrize("num_negatives", [0, -1, IMAGES, 100])
def test_a_number_that_the_batch_does_not_hold(x, y, num_negatives):
    with pytest.raises(UsageError) as raised:
        InBatch(num_negatives)(named_pairs, x, y)
    assert re.fullmatch(
        rf"num_negatives={num_negatives} [^.]*batch of {IMAGES}: choose 1 to 6[^.]*\.", str(raised.value)
    )


@pytest.mark.parametrize("shared", [False, True])
def test_samples_are_drawn_evenly_from_all_but_the_image_itself(shared):
    index = torch.tensor([0, 3, 9])
    generator = torch.Generator().manual_seed(0)
    drawn = draw(index, 30_000, 10, generator, shared)
    assert drawn.shape == ((30_000,) if shared else (3, 30_000))
    if shared:
        assert stats.chisquare(drawn.bincount(minlength=10)).pvalue > 1e-3
        return
    for own, row in zip(index.tolist(), drawn, strict=True):
        counts = row.bincount(minlength=10)
        assert counts[own] == 0
        assert stats.chisquare(counts[torch.arange(10) != own]).pvalue > 1e-3


@pytest.mark.parametrize("positive", ["bank", "batch"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_bank_answers_as_a_loop_over_its_rows(shared, positive):
    bank, critic = MemoryBank(12, 5), Cosine(0.2)
    index, x, y = torch.tensor([4, 7, 1]), torch.randn(3, 1, 5), torch.randn(3, 5)
    candidates = Marginal(9, shared)({"x": bank}, index, torch.Generator().manual_seed(1))["x"]
    scores, negative = FromBank(bank, index, candidates, positive)(critic, x, y)
    assert (scores.shape, negative.shape) == ((3, 1), (3, 1, 9))
    for i, own in enumerate(index.tolist()):
        other = bank.rows[own] if positive == "bank" else x[i, 0]
        assert scores[i].item() == pytest.approx(torch.cosine_similarity(y[i], other, dim=0).item() / 0.2, abs=1e-5)
        for k, sample in enumerate((candidates.index if shared else candidates.index[i]).tolist()):
            expected = torch.cosine_similarity(y[i], bank.rows[sample], dim=0).item() / 0.2
            assert negative[i, 0, k].item() == pytest.approx(-math.inf if sample == own else expected, abs=1e-5)


def test_rows_leave_the_others_out():
    x, y, rows = torch.randn(6, 2, 5), torch.randn(6, 5), torch.tensor([True, False, True, True, False, True])
    critic = EncodeAndDot(5, 5, units=4)
    expected = InBatch()(critic, x[rows], y[rows])
    for got, want in zip(InBatch()(critic, x, y, rows), expected, strict=True):
        torch.testing.assert_close(got, want)
    bank, index = MemoryBank(30, 5), torch.arange(6)
    ask = FromBank(bank, index, Marginal(8)({"x": bank}, index, torch.Generator())["x"])
    for got, whole in zip(ask(Cosine(), x[:, :1], y, rows), ask(Cosine(), x[:, :1], y), strict=True):
        assert torch.equal(got, whole[rows])


SAMPLES, SIZE = 30, 5
INDEX = torch.tensor([4, 7, 1, 29])


@pytest.fixture
def bank():
    return MemoryBank(SAMPLES, SIZE)


@pytest.fixture
def queries():
    return torch.randn(4, SIZE)


def region_of(name, bank, monkeypatch=None, close=None):
    """This step's candidates in each of the forms that they have."""
    if name.startswith("ball") and monkeypatch:
        monkeypatch.setattr(regions, "_SEARCHED_PER_FOUND", 0 if name == "ball_in_shards" else math.inf)
    region = {"marginal": Marginal(9), "shared": Marginal(9, shared=True)}.get(name, Ball(14, 9))
    return region({"x": bank}, INDEX, torch.Generator().manual_seed(1), close=None if close is None else {"x": close})[
        "x"
    ]


REGIONS = ("marginal", "shared", "ball", "ball_in_shards")
CRITICS = {
    "cosine": lambda: Cosine(0.2),
    "bilinear": lambda: Bilinear(SIZE, 0.2),
    "linear": lambda: Concat(SIZE, SIZE, 6, hidden_layers=0),
    "mlp1": lambda: Concat(SIZE, SIZE, 6, hidden_layers=1),
    "mlp2": lambda: Concat(SIZE, SIZE, 6, hidden_layers=2),
}


def naive_score(critic, x, y):
    """T(x, y) of one x and one y, by the formula in the paper's appendix D."""
    if isinstance(critic, Cosine):
        x, y = x / x.norm(), y / y.norm()
        weight = critic.weight if isinstance(critic, Bilinear) else torch.eye(SIZE)
        return x @ weight @ y / critic.temperature
    hidden = torch.cat([critic.embed_x.weight, critic.embed_y.weight], dim=1) @ torch.cat([x, y]) + critic.embed_x.bias
    for layer in critic.hidden:
        hidden = layer.weight @ hidden.clamp_min(0) + layer.bias
    return (hidden if critic.score is None else critic.score.weight @ hidden.clamp_min(0) + critic.score.bias).squeeze()


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("critic", CRITICS)
def test_every_critic_answers_for_every_region_as_a_loop_over_pairs(bank, queries, monkeypatch, name, critic):
    critic = CRITICS[critic]()
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter)  # a bilinear form begins as the identity
    bank.invalidate()
    bank.update(torch.arange(SAMPLES - 3), torch.randn(SAMPLES - 3, SIZE))  # the last three have no row
    candidates = region_of(name, bank, monkeypatch)
    positive, negative = FromBank(bank, INDEX, candidates)(critic, None, queries)
    assert (positive.shape, negative.shape) == ((4, 1), (4, 1, 9))
    for i, own in enumerate(INDEX.tolist()):
        torch.testing.assert_close(
            positive[i, 0], naive_score(critic, bank.rows[own], queries[i]), rtol=1e-4, atol=1e-5
        )
        for k, sample in enumerate(candidates.index.expand(4, -1)[i].tolist()):
            if sample == own or sample >= SAMPLES - 3:
                assert negative[i, 0, k] == -math.inf
            else:
                expected = naive_score(critic, bank.rows[sample], queries[i])
                torch.testing.assert_close(negative[i, 0, k], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("critic", CRITICS)
def test_gradients_of_y_and_of_the_critic_are_those_of_the_loop(bank, queries, monkeypatch, name, critic):
    critic, candidates = CRITICS[critic](), region_of(name, bank, monkeypatch)
    learned = [queries.requires_grad_(), *critic.parameters()]
    bound = infonce(*FromBank(bank, INDEX, candidates)(critic, None, queries))
    expected = 0.0
    for i, own in enumerate(INDEX.tolist()):
        others = [j for j in candidates.index.expand(4, -1)[i].tolist() if j != own]
        scores = torch.stack([naive_score(critic, bank.rows[j], queries[i]) for j in (own, *others)])
        expected = expected + scores.log_softmax(dim=0)[0] / 4
    gradients = [torch.autograd.grad(value, learned) for value in (bound, expected)]
    for ours, loop in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, loop, rtol=1e-4, atol=1e-5)
    assert critic.dot_product == isinstance(critic, Cosine)
    if name == "marginal" and not (isinstance(critic, Concat) and critic.score is None):  # a line compares nothing
        assert gradients[0][0].any()


@pytest.mark.parametrize("name", REGIONS)
def test_a_positive_of_the_batch_receives_a_gradient(bank, queries, monkeypatch, name):
    x = torch.randn(4, 1, SIZE, requires_grad=True)
    positive, _ = FromBank(bank, INDEX, region_of(name, bank, monkeypatch), "batch")(Cosine(0.2), x, queries)
    positive.sum().backward()
    for i in range(4):
        expected = torch.cosine_similarity(x[i, 0], queries[i], dim=0).item() / 0.2
        assert positive[i, 0].item() == pytest.approx(expected, abs=1e-5)
        assert x.grad[i].any()


def test_bilinear_begins_as_the_cosine_and_is_not_symmetric(bank, queries):
    critic = Bilinear(SIZE, 0.2)
    x = torch.randn(4, 2, SIZE)
    torch.testing.assert_close(critic(x, queries), Cosine(0.2)(x, queries), rtol=1e-5, atol=1e-5)
    torch.nn.init.normal_(critic.weight)
    scores = critic(x, queries)
    for i in range(4):
        for j in range(4):
            for location in range(2):
                expected = naive_score(critic, x[j, location], queries[i])
                torch.testing.assert_close(scores[i, j, location], expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (critic(x, queries) - scores).abs().max() < 1e-4
    critic.reset_parameters()
    assert torch.equal(critic.weight, torch.eye(SIZE))


class Marked:
    """Close neighbours by name."""

    def __init__(self, of):
        self.of = of

    def among(self, sample_index, candidates, share=1.0):
        return torch.tensor(
            [[j in self.of[i] for j in row] for i, row in zip(sample_index.tolist(), candidates.tolist(), strict=True)]
        )


@pytest.fixture
def close(bank):
    """The three nearest others of each sample of the batch, and one that is far."""
    cosines = bank.rows @ bank.rows.T
    return Marked({i: {*cosines[i].topk(4).indices.tolist(), cosines[i].argmin().item()} - {i} for i in INDEX.tolist()})


@pytest.mark.parametrize("name", ["ball", "ball_in_shards"])
@pytest.mark.parametrize("positives", ["own", "close"])
def test_close_neighbours_are_left_out_or_further_positives(bank, queries, close, monkeypatch, name, positives):
    candidates, critic = region_of(name, bank, monkeypatch, close), Cosine(0.2)
    sampler = FromBank(bank, INDEX, candidates, close_positive=positives == "close")
    positive, negative = sampler(critic, None, queries)
    assert positive.shape == ((4, 1) if positives == "own" else (4, 10))
    assert negative.shape == (4, 1, 9)
    for i, own in enumerate(INDEX.tolist()):
        score = {j: naive_score(critic, bank.rows[j], queries[i]).item() for j in range(SAMPLES)}
        near = [j for j in candidates.index[i].tolist() if j in close.of[own]]
        far = [j for j in candidates.index[i].tolist() if j not in close.of[own]]
        assert near
        assert positive[i, 0].item() == pytest.approx(score[own], abs=1e-5)
        assert sorted(s for s in positive[i, 1:].tolist() if s != -math.inf) == pytest.approx(
            sorted(score[j] for j in near) if positives == "close" else [], abs=1e-5
        )
        assert sorted(s for s in negative[i, 0].tolist() if s != -math.inf) == pytest.approx(
            sorted(score[j] for j in far), abs=1e-5
        )


@pytest.mark.parametrize("positives", ["own", "close"])
def test_an_image_without_background_neighbours_is_told(bank, queries, positives):
    candidates = region_of("ball", bank)
    everyone = Marked({i: set(range(SAMPLES)) for i in INDEX.tolist()})
    candidates.close = everyone.among(INDEX, candidates.index)
    candidates.close[0, 0] = False  # a single one is enough
    sampler = FromBank(bank, INDEX, candidates, close_positive=positives == "close")
    rows = torch.tensor([True, False, False, False])
    assert sampler(Cosine(), None, queries, rows)[1].isfinite().sum() == 1
    with pytest.raises(UsageError, match=r"^All 9 background neighbours of an image are its close neighbours, .*\.$"):
        sampler(Cosine(), None, queries)
    assert len(sampler(Cosine(), None, queries, torch.zeros(4, dtype=torch.bool))[0]) == 0  # nobody to miss them


@pytest.mark.parametrize("name", ["ball", "ball_in_shards"])
@pytest.mark.parametrize("critic", ["cosine", "bilinear", "mlp1"])
@pytest.mark.parametrize("annulus", [False, True])
def test_what_is_told_of_a_region(bank, queries, close, monkeypatch, name, critic, annulus):
    critic = CRITICS[critic]()
    candidates = region_of(name, bank, monkeypatch, close if annulus else None)
    sampler = FromBank(bank, INDEX, candidates)
    told = sampler.told(critic, queries, *sampler(critic, None, queries))
    assert candidates.marginal.shape == (9,)
    total, holds, below = 0.0, 0, 0
    for i, own in enumerate(INDEX.tolist()):
        at_large = [j for j in candidates.marginal.tolist() if j != own]
        region = [j for j in candidates.index[i].tolist() if not (annulus and j in close.of[own])]
        scores = torch.stack([naive_score(critic, bank.rows[j], queries[i]) for j in (own, *at_large)])
        total += (scores.log_softmax(dim=0)[0] + math.log(len(scores))).item() / 4
        # Corollary 4.1.1: tau > log E_p(y) e^f(y_1, y), y_1 being the own row; and what its proof makes of it, for x.
        holds += min(of(critic, bank, own, region)) > mean_exp(of(critic, bank, own, at_large))
        seen, whole = ([naive_score(critic, bank.rows[j], queries[i]).item() for j in k] for k in (region, at_large))
        below += mean_exp(seen) > mean_exp(whole)
    assert told["infonce"].item() == pytest.approx(total, abs=1e-5)
    assert (told["vince_holds"].item(), told["vince_below"].item()) == (holds / 4, below / 4)


def of(critic, bank, own, samples):
    """f(y_1, y), the scores of samples with the row of `own`."""
    return [naive_score(critic, bank.rows[j], bank.rows[own]).item() for j in samples]


def mean_exp(scores):
    return math.log(sum(map(math.exp, scores)) / len(scores))


def test_the_condition_of_the_corollary_holds_for_a_small_ball_of_a_large_bank_and_not_for_all_of_it(queries):
    bank = MemoryBank(400, SIZE)
    for size, share in ((4, 1.0), (399, 0.0)):
        candidates = Ball(size, 4)({"x": bank}, INDEX, torch.Generator().manual_seed(1))["x"]
        candidates.marginal = torch.arange(400)
        sampler = FromBank(bank, INDEX, candidates)
        assert sampler.told(Cosine(0.5), queries, *sampler(Cosine(0.5), None, queries))["vince_holds"] == share


@pytest.mark.parametrize("sign", [1, -1])
def test_the_condition_puts_vince_below_infonce_where_x_is_y1_and_says_nothing_of_other_x(sign):
    """Corollary 4.1.1 is true at f(x, .) = f(y_1, .); at the opposite of y_1 the ball has the lowest scores."""
    bank, critic, found = MemoryBank(200, SIZE), Cosine(0.5), []
    for own in range(0, 200, 10):
        index, everyone = torch.tensor([own]), torch.arange(200)
        for size in (8, 60, 199):
            candidates = Ball(size)({"x": bank}, index, torch.Generator())["x"]
            candidates.marginal = everyone[everyone != own]
            sampler, y = FromBank(bank, index, candidates), sign * bank.rows[index]
            positive, negative = sampler(critic, None, y)
            told = sampler.told(critic, y, positive, negative)
            _, whole = FromBank(bank, index, Candidates(candidates.marginal))(critic, None, y)
            # Without the positive below the line, whose weight there depends on the number of negatives.
            vince, information = (
                (positive - scores.logsumexp(dim=-1)).item() + math.log(scores.shape[-1])
                for scores in (negative, whole)
            )
            if size < 199:  # or they are the same
                assert bool(told["vince_below"]) == (vince < information)
            found.append((bool(told["vince_holds"]), vince < information))
    assert ((True, False) in found) == (sign == -1)
    assert ((True, True) in found) == (sign == 1)
    assert any(not holds for holds, _ in found)


@pytest.mark.parametrize("rows", [[True, False, True, False], [False] * 4])
def test_what_is_told_is_of_the_rows_that_take_part(bank, queries, rows):
    candidates, rows, critic = region_of("ball", bank), torch.tensor(rows), Cosine(0.2)
    sampler = FromBank(bank, INDEX, candidates)
    some = sampler.told(critic, queries, *sampler(critic, None, queries, rows), rows)
    if not rows.any():
        assert some["vince_holds"] == 0
        return
    index = candidates.index[rows]
    alone = FromBank(bank, INDEX[rows], Candidates(index, everyone=index, marginal=candidates.marginal))
    for name, value in alone.told(critic, queries[rows], *alone(critic, None, queries[rows])).items():
        torch.testing.assert_close(some[name], value)


@pytest.mark.parametrize("build", [Cosine, lambda: Bilinear(5), lambda: Concat(5, 5, 6, hidden_layers=1)])
def test_a_queue_gives_what_a_loop_over_its_keys_does(build):
    critic, queue = build(), KeyQueue(9, 5)
    queue.enqueue(torch.randn(6, 5), torch.tensor([4, 2, 4, 8, 8, 1]))
    keys, y, index = torch.randn(3, 1, 5), torch.randn(3, 5), torch.tensor([8, 4, 5])
    positive, negative = FromQueue(queue, index)(critic, keys, y)
    for place in range(3):
        ask = y[place : place + 1]
        torch.testing.assert_close(positive[place], critic(F.normalize(keys[place], dim=1)[None], ask)[0, 0])
        for key in range(6):  # three places are still empty
            expected = critic(queue.rows[key].view(1, 1, 5), ask).squeeze()
            own = queue.samples[key] == index[place]
            assert negative[place, 0, key].item() == (-math.inf if own else pytest.approx(expected.item(), abs=1e-5))
    assert negative.shape == (3, 1, 6)


def test_a_queue_without_places_leaves_nothing_out():
    queue = KeyQueue(4, 5)
    queue.enqueue(torch.randn(4, 5))
    _, negative = FromQueue(queue)(Cosine(), torch.randn(2, 1, 5), torch.randn(2, 5))
    assert negative.isfinite().all()
