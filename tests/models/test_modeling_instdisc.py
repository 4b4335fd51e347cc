import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel

from hf_infomax import (
    CMCConfig,
    CMCForPreTraining,
    InstDiscConfig,
    InstDiscForImageClassification,
    InstDiscForPreTraining,
    UsageError,
)

N = 40
INDEX = torch.tensor([7, 30, 0, 39, 12, 3])
TOLD = {"vince", "infonce", "vince_holds", "vince_below"}


@pytest.fixture
def build(instdisc_config):
    """A model, and its training state at the beginning of an epoch."""

    def make(preset="ir", epoch=0, **options):
        model = InstDiscForPreTraining(instdisc_config(preset, **options))
        state = model.training_state(N, torch.device("cpu"))
        if state:
            state.before_epoch(epoch, model, list)
        return model, state

    return make


@pytest.fixture
def pairs(images):
    return torch.stack([images, images.flip(-1)], dim=1)


def vectors(model, images):
    with torch.no_grad():
        return F.normalize(model.features(images), dim=1)


@pytest.mark.parametrize("critic", ["cosine", "bilinear", "mlp1"])
@pytest.mark.parametrize("preset", InstDiscConfig.presets)
def test_every_preset_takes_steps(build, pairs, preset, critic):
    model, state = build(preset, critic=critic, anneal_epochs=2, warmup_epochs=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {"1->2", "2->1"} if preset == "simclr" else {"1->bank", "2->bank"}
    for number in range(2):
        output = model(pairs, state=state, sample_index=INDEX)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        assert output.loss.isfinite()
        assert set(output.parts) == names | (set() if preset in ("ir", "simclr") else TOLD)
        assert all(part.isfinite() and not part.requires_grad for part in output.parts.values())
        assert output.loss.item() == pytest.approx(-sum(output.parts[name].item() for name in names) / 2, abs=1e-5)
        assert output.bound.item() <= math.log(9) + 1e-5
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert any(p.grad.any() for p in model.model.parameters())
        if preset == "simclr":
            assert (state, output.embeddings) == (None, None)
        else:
            before = state.banks["RGB"].rows.clone()
            state.after_step(output, number)
            moved = (state.banks["RGB"].rows != before).any(dim=1)
            assert moved.nonzero().flatten().tolist() == sorted(INDEX.tolist())


def test_the_presets_are_what_the_paper_says():
    presets = {name: InstDiscConfig.preset(name) for name in InstDiscConfig.presets}
    assert set(presets) == {"ir", "simclr", "ball", "ann", "la", "ball+", "ann+"}
    for config in presets.values():
        assert (config.temperature, config.representation_size, config.bank_momentum) == (0.07, 128, 0.5)  # B.3
        assert (config.num_clusters, config.num_clusterings, config.ball_size) == (300, 10, 4096)
        assert (config.bound, config.critic_units) == ("infonce", 128)
    said = {
        name: (config.negatives, config.positives, config.head, config.anneal is not None)
        for name, config in presets.items()
    }
    assert said == {
        "ir": ("bank", "own", None, False),
        "simclr": ("batch", "own", "mlp", False),
        "ball": ("ball", "own", None, False),
        "ann": ("annulus", "own", None, False),
        "la": ("ball", "close", None, False),
        "ball+": ("ball", "own", None, True),
        "ann+": ("annulus", "own", None, True),
    }
    assert InstDiscConfig.preset("ann+", anneal="step", anneal_epochs=7).anneal_epochs == 7
    assert InstDiscConfig().negatives == InstDiscConfig.preset("ir").negatives


@pytest.mark.parametrize("shared", [False, True])
def test_ir_equals_a_loop_over_the_draw(build, images, shared):
    model, state = build(shared_negatives=shared)
    model.eval()
    output = model(images, state=state, sample_index=INDEX)
    state.draws = 0  # the same draw, once more
    drawn = state.negatives(INDEX)["RGB"].candidates.index.expand(6, -1)
    x, rows, total = vectors(model, images).double(), state.banks["RGB"].rows.double(), 0.0
    for i, own in enumerate(INDEX.tolist()):
        h = [math.exp(x[i] @ rows[j] / 0.07) for j in (own, *(j for j in drawn[i].tolist() if j != own))]
        total += math.log(h[0] / (sum(h) / len(h))) / 6
    assert output.loss.item() == pytest.approx(-total, abs=1e-4)
    assert output.bound.item() == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("preset", ["ball", "ann", "la"])
def test_the_bound_of_a_region_is_infonce_with_the_marginal(build, images, preset):
    model, state = build(preset, warmup_epochs=0)
    model.eval()
    output = model(images, state=state, sample_index=INDEX)
    state.draws = 0
    candidates = state.negatives(INDEX)["RGB"].candidates
    x, rows, total = vectors(model, images), state.banks["RGB"].rows, 0.0
    for i, own in enumerate(INDEX.tolist()):
        others = [j for j in candidates.marginal.tolist() if j != own]
        scores = torch.stack([x[i] @ rows[j] / 0.07 for j in (own, *others)])
        total += (scores.log_softmax(dim=0)[0] + math.log(len(scores))).item() / 6
    assert output.bound.item() == pytest.approx(total, abs=1e-4)
    assert output.bound is output.parts["infonce"]
    assert output.bound.item() != pytest.approx(-output.loss.item(), abs=1e-3)
    assert all(0 <= output.parts[name].item() <= 1 for name in ("vince_holds", "vince_below"))
    vince = output.parts["vince"].item()
    assert (vince == pytest.approx(-output.loss.item(), abs=1e-5)) == (preset != "la")
    assert vince <= -output.loss.item() + 1e-5  # LA's objective is no bound; the mean over its positives is


@pytest.mark.parametrize("bound", ["jsd", "dv"])
def test_other_bounds_have_regions_too(build, images, bound):
    model, state = build("ball", bound=bound)
    output = model(images, state=state, sample_index=INDEX)
    assert output.loss.isfinite()
    assert output.bound is output.parts["infonce"]
    model, state = build("ir", bound=bound)
    assert (model(images, state=state, sample_index=INDEX).bound is None) == (bound == "jsd")


def test_nce_has_the_bank(build, images):
    model, state = build("ir", bound="nce")
    output = model(images, state=state, sample_index=INDEX)
    assert output.loss.isfinite()
    assert output.bound is None
    assert set(state.log_z) == {"1->bank"}


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("preset", ["ir", "la"])
def test_each_augmentation_is_compared_with_the_bank_and_the_first_is_remembered(build, preset, views):
    model, state = build(preset, warmup_epochs=0)
    model.eval()
    shown = torch.rand(6, views, 3, 32, 32)
    output = model(shown, state=state, sample_index=INDEX)
    state.draws = 0
    alone = []
    for view in range(views):
        one = model(shown[:, view], state=state, sample_index=INDEX)
        alone.append(one.parts["1->bank"].item())
        state.draws = 0  # they share their candidates
    for view in range(views):
        assert output.parts[f"{view + 1}->bank"].item() == pytest.approx(alone[view], abs=1e-4)
    assert output.loss.item() == pytest.approx(-sum(alone) / views, abs=1e-4)
    torch.testing.assert_close(output.embeddings["RGB"], vectors(model, shown[:, 0]), rtol=1e-4, atol=1e-5)
    assert torch.equal(output.sample_index, INDEX)


@pytest.mark.parametrize("views", [2, 3])
def test_every_pair_of_augmentations_is_compared_in_both_directions(build, views):
    model, _ = build("simclr", head=None, temperature=0.5)
    model.eval()
    shown = torch.rand(6, views, 3, 32, 32)
    output = model(shown)
    z = [vectors(model, shown[:, view]) for view in range(views)]
    expected = {
        f"{x + 1}->{y + 1}": math.log(6) - F.cross_entropy(z[x] @ z[y].T / 0.5, torch.arange(6)).item()
        for x in range(views)
        for y in range(views)
        if x != y
    }
    assert {name: part.item() for name, part in output.parts.items()} == pytest.approx(expected, abs=1e-4)
    assert output.loss.item() == pytest.approx(-sum(expected.values()) / len(expected), abs=1e-4)


def test_positives_of_the_batch_are_another_augmentation(build, pairs):
    model, state = build("ir", bank_positive="batch", num_negatives=20)
    model.eval()
    output = model(pairs, state=state, sample_index=INDEX)
    state.draws = 0
    negative = state.negatives(INDEX)["RGB"]
    z, rows = [vectors(model, pairs[:, view]) for view in range(2)], state.banks["RGB"].rows
    for anchor, other in ((0, 1), (1, 0)):
        total = 0.0
        for i in range(6):
            drawn = rows[negative.candidates.index[i]]
            scores = torch.cat([z[anchor][i] @ z[other][i, :, None], drawn @ z[anchor][i]]) / 0.07
            total += (scores.log_softmax(dim=0)[0] + math.log(21)).item() / 6
        assert output.parts[f"{anchor + 1}->bank"].item() == pytest.approx(total, abs=1e-4)


def test_the_bound_of_a_region_has_the_positive_that_is_trained_with(build, pairs):
    """`infonce` beside `vince`: other negatives, and nothing else."""
    model, state = build("ball", bank_positive="batch")
    model.eval()
    output = model(pairs, state=state, sample_index=INDEX)
    state.draws = 0
    marginal = state.negatives(INDEX)["RGB"].candidates.marginal
    z, rows, total = [vectors(model, pairs[:, view]) for view in range(2)], state.banks["RGB"].rows, 0.0
    for anchor, other in ((0, 1), (1, 0)):
        for i, own in enumerate(INDEX.tolist()):
            scores = (
                torch.cat([z[anchor][i] @ z[other][i, :, None], rows[marginal[marginal != own]] @ z[anchor][i]]) / 0.07
            )
            total += (scores.log_softmax(dim=0)[0] + math.log(len(scores))).item() / 12
    assert output.bound.item() == pytest.approx(total, abs=1e-4)


def test_without_momentum_the_bank_holds_the_newest_view(build, images):
    model, state = build("ir", bank_momentum=0)
    model.eval()
    for shown in (images, torch.rand_like(images)):
        state.after_step(model(shown, state=state, sample_index=INDEX), 1)
        torch.testing.assert_close(state.banks["RGB"].rows[INDEX], vectors(model, shown), rtol=1e-4, atol=1e-5)


def test_with_momentum_the_bank_holds_a_weighted_set_of_views(build, images):
    """Eq. 7, but for its normalisation."""
    model, state = build("ir", bank_momentum=0.3)
    model.eval()
    row = state.banks["RGB"].rows[INDEX]
    for shown in (images, torch.rand_like(images)):
        state.after_step(model(shown, state=state, sample_index=INDEX), 1)
        row = F.normalize(0.3 * row + 0.7 * vectors(model, shown), dim=1)
    torch.testing.assert_close(state.banks["RGB"].rows[INDEX], row, rtol=1e-4, atol=1e-5)


def test_users_receive_what_is_before_the_head(build, pairs, images):
    model, _ = build("simclr", head_units=6)
    model.eval()
    y = model.model(images).pooler_output
    assert torch.equal(model.features(images), y)
    assert y.shape == (6, 10)
    z = model.embeddings(pairs)["RGB"]
    torch.testing.assert_close(z, F.normalize(model.head(y), dim=1), rtol=1e-4, atol=1e-5)
    assert z.shape == (6, 6)
    linear, _, output = model.head
    torch.testing.assert_close(model.head(y), output(linear(y).clamp_min(0)))
    assert build("ball", head="mlp", head_units=6)[1].banks["RGB"].size == 6


@pytest.mark.parametrize("critic", ["cosine", "bilinear", "mlp2"])
@pytest.mark.usefixtures("silent")
def test_the_encoder_of_a_checkpoint_with_head_and_critic_loads_without_a_word(build, images, tmp_path, critic):
    model, state = build("ball", head="mlp", critic=critic)
    model.eval().save_pretrained(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(encoder(images).pooler_output, model.features(images))
    again = InstDiscForPreTraining.from_pretrained(tmp_path).eval()
    losses = []
    for one in (model, again):
        state.draws = 0
        losses.append(one(images, state=state, sample_index=INDEX).loss)
    assert torch.equal(*losses)


def test_a_classifier_reads_the_same_encoder(build, images, tmp_path):
    model, _ = build("simclr")
    model.eval().save_pretrained(tmp_path)
    classifier = InstDiscForImageClassification.from_pretrained(tmp_path, num_labels=4).eval()
    assert classifier(images, labels=torch.arange(6) % 4).logits.shape == (6, 4)
    assert torch.equal(classifier.model.features(images), model.features(images))


def test_another_view_of_the_image_may_be_the_one(build, images):
    model, state = build("ball", color_space="lab", views=["L"])
    output = model(images, state=state, sample_index=INDEX)
    assert set(state.banks) == set(output.embeddings) == {"L"}


def test_the_critics_are_those_of_appendix_d(build):
    counts = {
        critic: sum(p.numel() for p in build("ir", critic=critic)[0].critic.parameters())
        for critic in ("cosine", "bilinear", "linear", "mlp1", "mlp2")
    }
    first = 12 * 20 + 12
    assert counts == {"cosine": 0, "bilinear": 100, "linear": 21, "mlp1": first + 13, "mlp2": first + 12 * 13 + 13}


def test_a_run_draws_its_batches_with_replacement_where_there_is_a_bank(build):
    assert build("ir")[0].wants_replacement
    assert not build("simclr")[0].wants_replacement


@pytest.mark.parametrize(
    ("preset", "options", "sentence"),
    [
        ("ball", {"bound": "nce"}, r"^bound='nce' draws its noise from all of the data: take negatives='bank'"),
        ("simclr", {"bound": "nce"}, r"^bound='nce' draws its noise from all of the data"),
        ("ann", {"positives": "close"}, r"^positives='close' is Local Aggregation, .* take negatives='ball' and"),
        ("ir", {"positives": "close"}, r"^positives='close' is Local Aggregation"),
        ("la", {"bound": "dv"}, r"^positives='close' is Local Aggregation, .* bound='infonce' with it\.$"),
        ("ir", {"anneal": "linear", "anneal_epochs": 3}, r"^anneal='linear' needs a region to shrink: take negatives="),
        ("simclr", {"anneal": "step"}, r"^anneal='step' needs a region to shrink"),
        (
            "ir",
            {"views": ["R", "G"]},
            r"^views=\['R', 'G'\]: instance discrimination compares augmentations of one view",
        ),
        ("ir", {"negatives": "queue"}, r"^Unknown negatives 'queue': choose one of batch, bank, ball, annulus\.$"),
        ("ir", {"positives": "near"}, r"^Unknown positives 'near': choose one of own, close\.$"),
        ("ir", {"close_neighbors": "knn"}, r"^Unknown close_neighbors 'knn': choose one of clusters, nearest\.$"),
        ("ir", {"critic": "dot"}, r"^Unknown critic 'dot': choose one of cosine, bilinear, linear, mlp1, mlp2\.$"),
        ("ir", {"head": "cubic"}, r"^Unknown head 'cubic': choose [^.]*mlp[^.]*\.$"),
        ("ir", {"bound": "mine"}, r"^Unknown bound 'mine': choose one of infonce, dv, jsd, nce\.$"),
        ("moco", {}, r"^Unknown preset 'moco': choose one of ir, simclr, la, ball, ann, ball\+, ann\+\.$"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(build, preset, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        build(preset, **options)


def test_batches_that_do_not_fit_are_one_sentence(build, images, pairs):
    one_view = r"^One augmentation of an image has nothing to be compared with: .* views\.recipe=simclr, or .*\.$"
    simclr, _ = build("simclr")
    for shown in (images, images.unsqueeze(1)):
        with pytest.raises(UsageError, match=one_view):
            simclr(shown)
    with pytest.raises(UsageError, match=r"^A batch of one image [^.]*\.$"):
        simclr(pairs[:1])
    model, state = build("ball", bank_positive="batch")
    with pytest.raises(UsageError, match=one_view):
        model(images, state=state, sample_index=INDEX)
    for shown, given in ((images[0], r"\(3, 32, 32\)"), (pairs[None], r"\(1, 6, 2, 3, 32, 32\)"), (None, "nothing")):
        with pytest.raises(UsageError, match=rf"^pixel_values must be \(batch, 3, [^.]*, not {given}\.$"):
            model(shown, state=state, sample_index=INDEX)
    with pytest.raises(
        UsageError, match=r"^negatives='ball' needs state=model\.training_state\(num_samples, device\)\.$"
    ):
        model(pairs, sample_index=INDEX)
    with pytest.raises(UsageError, match=r"^A memory bank needs sample_index"):
        model(pairs, state=state)


# CMC's regions

COLUMNS = {"views": ["L", "ab", "depth"], "columns": {"depth": {}}}


@pytest.fixture
def multiview(cmc_config):
    def make(preset, epoch=0, **options):
        small = {"ball_size": 12, "num_negatives": 8, "close_neighbors": "nearest", "num_neighbors": 3}
        fields = {**CMCConfig.presets[preset], "bank_fill": "random", "anneal_epochs": 2, **small, **options}
        model = CMCForPreTraining(cmc_config(**fields))
        state = model.training_state(N, torch.device("cpu"))
        state.before_epoch(epoch, model, list)
        return model, state

    return make


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("preset", CMCConfig.presets)
def test_cmc_takes_steps_with_every_region(multiview, images, preset, views):
    model, state = multiview(preset, **(COLUMNS if views == 3 else {}))
    depth = {"depth": torch.rand(6, 1, 32, 32)} if views == 3 else {}
    pairs = {f"{x}->{y}" for x in state.banks for y in state.banks if x != y}
    for number in range(2):
        output = model(images, state=state, sample_index=INDEX, **depth)
        output.loss.backward()
        state.after_step(output, number)
        assert set(output.parts) == pairs | (set() if preset == "cmc" else TOLD)
        assert output.loss.item() == pytest.approx(-sum(output.parts[pair].item() for pair in pairs), abs=1e-4)
        expected = output.parts["infonce"] if preset != "cmc" else -output.loss / 2 / (1 if views == 2 else 3)
        assert output.bound.item() == pytest.approx(expected.item(), abs=1e-4)
        if preset != "cmc":
            mean = sum(output.parts[pair].item() for pair in pairs) / len(pairs)
            assert output.parts["vince"].item() == pytest.approx(mean, abs=1e-4)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("present", [[True, True, False, True, False, True], [False] * 6])
@pytest.mark.parametrize("preset", ["cmc-ball", "cmc-ann", "cmc-ball+"])
def test_missing_views_take_no_part_in_the_pairs_of_a_region(multiview, images, preset, present):
    model, state = multiview(preset, **COLUMNS)
    model.eval()
    there, depth = torch.tensor(present), torch.rand(6, 1, 32, 32)
    runs = []
    for shown in (depth, depth.masked_fill(~there[:, None, None, None], -7.0)):  # what stands for a view is never seen
        state.draws = 0
        output = model(images, state=state, sample_index=INDEX, present={"depth": there}, depth=shown)
        runs.append(output)
    for name, part in runs[0].parts.items():
        assert part.isfinite(), name
        torch.testing.assert_close(part, runs[1].parts[name])
        assert not ("depth" in name and not any(present)) or part == 0
    assert runs[0].bound.isfinite()
    runs[0].loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    state.after_step(runs[0], 1)
    assert state.banks["depth"].valid[INDEX].tolist() == present
    again = model(images, state=state, sample_index=INDEX, depth=depth)  # those without a row are no candidates now
    assert again.loss.isfinite()


def test_a_view_that_few_samples_have_is_searched_among_those(multiview, images):
    model, state = multiview("cmc-ball", **COLUMNS)
    model.eval()
    bank = state.banks["depth"]
    bank.invalidate()
    bank.update(torch.arange(0, N, 2), torch.randn(N // 2, 10))
    depth, there = torch.rand(6, 1, 32, 32), INDEX % 2 == 0
    output = model(images, state=state, sample_index=INDEX, present={"depth": there}, depth=depth)
    output.loss.backward()
    assert output.loss.isfinite()
    state.draws = 0
    candidates = state.negatives(INDEX)["depth"].candidates.index
    assert all(j % 2 == 0 or j == i for i, row in zip(INDEX.tolist(), candidates.tolist(), strict=True) for j in row)


@pytest.mark.parametrize("preset", ["cmc-ball", "cmc-ann"])
def test_a_view_that_no_sample_of_the_data_has(multiview, images, preset):
    model, state = multiview(preset, **COLUMNS)
    model.eval()
    state.banks["depth"].invalidate()
    nobody = {"depth": torch.zeros(6, dtype=torch.bool)}
    output = model(images, state=state, sample_index=INDEX, present=nobody, depth=torch.rand(6, 1, 32, 32))
    output.loss.backward()
    assert {output.parts[name].item() for name in output.parts if "depth" in name} == {0.0}
    assert all(part.isfinite() for part in output.parts.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
