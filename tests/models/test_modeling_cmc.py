import math

import pytest
import torch
from torch.nn import functional as F

from hf_infomax import CMCConfig, CMCForPreTraining, UsageError
from hf_infomax.models.colors import rgb_to_lab, rgb_to_ycbcr


@pytest.fixture
def build(cmc_config):
    def make(**options):
        return CMCForPreTraining(cmc_config(**options)).eval()

    return make


@pytest.mark.parametrize(("space", "views"), [("lab", ["L", "ab"]), ("ycbcr", ["Y", "CbCr"])])
def test_the_loss_equals_a_loop_over_eq_4_in_both_directions(build, images, space, views):
    model = build(color_space=space, views=views, temperature=0.2)
    with torch.no_grad():
        output = model(images)
        z = {name: layers["y"].double() for name, layers in model.model.encode(images).items()}
    expected = {}
    for anchor, target in (views, views[::-1]):
        total = 0.0
        for i in range(6):
            h = [math.exp(F.cosine_similarity(z[anchor][i], z[target][j], dim=0) / 0.2) for j in range(6)]
            total += math.log(h[i] / sum(h)) + math.log(6)  # eq. 4 is the loss without the constant log k
        expected[f"{anchor}->{target}"] = total / 6
    assert {name: part.item() for name, part in output.parts.items()} == pytest.approx(expected, abs=1e-5)
    assert output.loss.item() == pytest.approx(-sum(expected.values()), abs=1e-5)
    assert output.bound.item() == pytest.approx(sum(expected.values()) / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("core", "pairs"),
    [
        (None, {"L->a", "a->L", "L->b", "b->L", "a->b", "b->a"}),  # eq. 8, the full graph
        ("L", {"L->a", "a->L", "L->b", "b->L"}),  # eq. 7
    ],
)
def test_more_than_two_views_are_the_sum_over_their_pairs(build, images, core, pairs):
    model = build(views=["L", "a", "b"], core_view=core)
    with torch.no_grad():
        output = model(images)
        z = {name: F.normalize(layers["y"], dim=1) for name, layers in model.model.encode(images).items()}
    assert set(output.parts) == pairs
    own = torch.arange(6)
    total = sum(
        F.cross_entropy(z[anchor] @ z[target].T / 0.07, own) - math.log(6)
        for anchor, target in (pair.split("->") for pair in pairs)
    )
    torch.testing.assert_close(output.loss, total, rtol=1e-4, atol=1e-4)
    assert output.bound.item() == pytest.approx(-total.item() / len(pairs), abs=1e-4)
    assert model.model(images).pooler_output.shape[1] == 3 * z["L"].shape[1]


def test_a_core_view_is_one_of_the_views(build):
    with pytest.raises(UsageError, match="Unknown core_view 'b': choose one of L, ab"):
        build(core_view="b")


def test_the_loss_is_a_symmetric_cross_entropy(build, images):
    model = build()
    output = model(images)
    left, right = (F.normalize(layers["y"], dim=1) for layers in model.model.encode(images).values())
    logits, own = left @ right.T / 0.07, torch.arange(6)
    cross_entropies = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
    torch.testing.assert_close(output.loss, cross_entropies - 2 * math.log(6), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("space", "convert"), [("lab", rgb_to_lab), ("ycbcr", rgb_to_ycbcr)])
def test_each_encoder_sees_its_own_channels(build, images, space, convert):
    views = {"lab": ["L", "ab"], "ycbcr": ["Y", "CbCr"]}[space]
    model = build(color_space=space, views=views)
    seen = model.model.views(images)
    planes = convert(images)
    assert [view.shape[1] for view in seen.values()] == [1, 2]
    for name, channels in zip(views, (planes[:, :1], planes[:, 1:]), strict=True):
        for channel in range(seen[name].shape[1]):
            pair = torch.stack([seen[name][:, channel].flatten(), channels[:, channel].flatten()])
            assert pair.corrcoef()[0, 1] > 0.9999


def test_the_views_do_not_mix_before_the_critic(build, images):
    model = build()
    encoders = model.model.encoders
    assert not {id(p) for p in encoders["L"].parameters()} & {id(p) for p in encoders["ab"].parameters()}
    model.model.encode(images)["L"]["y"].sum().backward()
    assert all(p.grad is None for p in encoders["ab"].parameters())
    assert any(p.grad is not None for p in encoders["L"].parameters())


def test_every_parameter_receives_a_gradient(build, images):
    model = build().train()
    model(images).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_few_negatives_lower_the_ceiling(build, images):
    model = build(temperature=0.001, num_negatives=2)
    with torch.no_grad():
        assert all(part <= math.log(3) + 1e-5 for part in model(images).parts.values())


def test_grey_images_have_no_colour_and_no_nan(build):
    model = build().train()
    grey = torch.rand(6, 1, 32, 32).expand(-1, 3, -1, -1)
    output = model(torch.cat([grey[:4], torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)]))
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_published_settings():
    config = CMCConfig()
    assert (config.temperature, config.representation_size, list(config.views)) == (0.07, 128, ["L", "ab"])
    model = CMCForPreTraining(config)
    assert model.model.layer_shapes["y"] == (256,)
    assert len(list(model.critic.parameters())) == 0


@pytest.mark.parametrize("bound", ["infonce", "nce"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_loss_with_a_bank_equals_a_loop_over_its_rows(build, images, bound, shared):
    model = build(negatives="bank", num_negatives=15, bound=bound, shared_negatives=shared, bank_fill="random")
    state, index = model.training_state(40, torch.device("cpu")), torch.tensor([7, 30, 0, 39, 12, 3])
    twin = model.training_state(40, torch.device("cpu")).negatives(index)  # the first draw, once more
    with torch.no_grad():
        output = model(images, state=state, sample_index=index)
        z = {name: F.normalize(layers["y"], dim=1).double() for name, layers in model.encode(images).items()}
    for anchor, target in (("L", "ab"), ("ab", "L")):
        rows, total = state.banks[target].rows.double(), 0.0
        drawn = twin[target].candidates.index.expand(6, -1)
        h = [
            [math.exp(z[anchor][i] @ rows[j] / 0.07) for j in drawn[i].tolist() if j != index[i]]  # never the positive
            for i in range(6)
        ]
        own = [math.exp(z[anchor][i] @ rows[index[i]] / 0.07) for i in range(6)]
        big_z = 40 * sum(map(sum, h)) / sum(map(len, h))
        for positive, negative in zip(own, h, strict=True):
            if bound == "infonce":
                total += math.log(positive / (positive + sum(negative))) + math.log(len(negative) + 1)
            else:  # eq. 10 and 11
                m_pn = len(negative) / 40
                total += math.log(positive / big_z / (positive / big_z + m_pn))
                total += sum(math.log(m_pn / (n / big_z + m_pn)) for n in negative)
        assert output.parts[f"{anchor}->{target}"].item() == pytest.approx(total / 6, rel=1e-4)
    assert (output.bound is None) == (bound == "nce")


def test_a_step_with_a_bank_reaches_both_encoders(build, images):
    model = build(negatives="bank", num_negatives=10, bank_fill="random").train()
    state = model.training_state(20, torch.device("cpu"))
    output = model(images, state=state, sample_index=torch.arange(6))
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert not any("bank" in name for name in model.state_dict())


SEVERAL = {
    "views": ["L", "ab", "depth", "semantic"],
    "columns": {"depth": {"mean": 2.0, "std": 0.5}, "semantic": {"classes": 4}},
}


@pytest.fixture
def columns():
    return {"depth": 2 + torch.rand(6, 1, 32, 32), "semantic": torch.randint(5, (6, 1, 32, 32), dtype=torch.uint8)}


def test_columns_of_the_batch_are_views_too(build, images, columns):
    model = build(**SEVERAL)
    output = model(images, **columns, sample_index=torch.arange(6))
    assert len(output.parts) == 12
    encoded = model.encode(images, ["L", "ab", "depth", "semantic"], **columns)
    assert torch.equal(encoded["depth"]["y"], model.features(None, views=["depth"], **columns))
    assert model.features(images).shape[1] == 20  # what an image alone gives: L and ab
    everything = build(**SEVERAL, feature_views=SEVERAL["views"])
    assert everything.features(images, layer="fc", **columns).shape[1] == 4 * 24


@pytest.mark.parametrize("negatives", ["batch", "bank"])
def test_missing_views_take_no_part_in_their_pairs(build, images, columns, negatives):
    model = build(**SEVERAL, negatives=negatives, num_negatives=None if negatives == "batch" else 9, bank_fill="random")
    present = {"depth": torch.tensor([True, True, False, True, False, True])}
    there = present["depth"]

    def run(images, columns, present, index):
        state = model.training_state(30, torch.device("cpu"))
        with torch.no_grad():
            return model(images, present=present, state=state, sample_index=index, **columns)

    index = torch.arange(6)
    output = run(images, columns, present, index)
    blank = {**columns, "depth": columns["depth"].masked_fill(~there[:, None, None, None], -7.0)}
    garbage = run(images, blank, present, index)
    whole = run(images, columns, None, index)
    kept = run(images[there], {name: column[there] for name, column in columns.items()}, None, index[there])
    for name, part in output.parts.items():
        torch.testing.assert_close(part, garbage.parts[name])  # what stands for a missing view is never seen
        if "depth" not in name:
            torch.testing.assert_close(part, whole.parts[name])
        elif negatives == "batch":
            torch.testing.assert_close(part, kept.parts[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (0, {}),
        (1, {}),
        (3, {"num_negatives": 3}),
        (0, {"negatives": "bank", "num_negatives": 9}),
        (0, {"negatives": "bank", "bound": "nce"}),
    ],
)
def test_a_view_that_nobody_has_leaves_its_parameters_in_the_graph(build, images, columns, count, options):
    model = build(**SEVERAL, **options).train()
    state = model.training_state(30, torch.device("cpu"))
    present = {"depth": torch.arange(6) < count}
    output = model(images, state=state, sample_index=torch.arange(6), present=present, **columns)
    output.loss.backward()
    assert output.loss.isfinite()
    assert {output.parts[name].item() for name in output.parts if "depth" in name} == {0.0}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not any(p.grad.any() for p in model.model.encoders["depth"].parameters())


def test_patches_are_compared_with_the_vector_of_the_other_view(build, images):
    model = build(contrast="patch", dot_units=16)
    with torch.no_grad():
        output = model(images)
        encoded = model.encode(images)
        for anchor, target in (("L", "ab"), ("ab", "L")):
            y = model.embed_y[anchor](encoded[anchor]["y"])
            x = model.embed_x[target](encoded[target]["conv2"].flatten(2).mT)  # (6, 64, 16)
            total = 0.0
            for i in range(6):
                others = torch.cat([x[j] @ y[i] for j in range(6) if j != i])
                for positive in x[i] @ y[i]:
                    total += positive - torch.cat([positive[None], others]).logsumexp(0) + math.log(len(others) + 1)
            assert output.parts[f"{anchor}->{target}"].item() == pytest.approx(total.item() / (6 * 64), abs=1e-4)
    assert model.local_layer == "conv2"


def test_one_view_against_its_own_patches_is_deep_infomax(build, images):
    model = build(contrast="patch", views=["L"], dot_units=16)
    assert list(model(images).parts) == ["L->L"]


def test_strided_crops_know_nothing_of_their_neighbours(build):
    model = build(contrast="patch", image_size=32, patch_size=16, patch_stride=8, dot_units=16)
    assert model.local_layer == "patches"
    images = torch.rand(6, 3, 32, 32)
    changed = images.clone()
    changed[:, :, :8] = 0
    one, other = (model.encode(batch)["L"]["patches"] for batch in (images, changed))  # (6, 10, 3, 3)
    assert torch.equal(one[:, :, 1:], other[:, :, 1:])
    assert not torch.equal(one[:, :, 0], other[:, :, 0])
    assert model(images).loss.isfinite()


def test_a_later_frame_shares_the_encoder_of_the_view_that_it_is_like(build, images):
    columns = {"next_frame": {"like": "RGB"}, "flow": {"channels": 4, "std": 3.0}}
    model = build(color_space="rgb", views=["RGB", "next_frame", "flow"], columns=columns, core_view="RGB")
    assert list(model.model.encoders) == ["RGB", "flow"]
    batch = {"next_frame": images.flip(0), "flow": torch.randn(6, 4, 32, 32)}
    encoded = model.encode(images, ["RGB", "next_frame"], **batch)
    assert torch.equal(encoded["next_frame"]["y"], model.encode(images.flip(0))["RGB"]["y"])
    assert set(model(images, **batch).parts) == {"RGB->next_frame", "next_frame->RGB", "RGB->flow", "flow->RGB"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"negatives": "queue"}, r"^Unknown negatives 'queue': choose one of batch, bank, ball, annulus\.$"),
        ({"contrast": "local"}, r"^Unknown contrast 'local': choose one of global, patch\.$"),
        (
            {"contrast": "patch", "negatives": "bank"},
            r"^A memory bank keeps vectors, not patches: .* contrast='patch'\.$",
        ),
        ({"bound": "nce"}, r"^bound='nce' draws its noise from all of the data: take negatives='bank'"),
        (
            {"contrast": "patch", "local_layer": "conv9"},
            r"^Unknown local_layer 'conv9': choose one of conv1, conv2, conv\.$",
        ),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(build, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        build(**options)
