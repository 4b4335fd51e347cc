import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_infomax import PredictiveConfig, PredictiveForPreTraining, PredictiveModel, UsageError
from hf_infomax.models.colors import rgb_to_lab
from hf_infomax.models.views import stand_in

LABELS = {"semantic": {"classes": 4}}
DEPTH = {"depth": {"channels": 1, "mean": 2.0, "std": 1.5}}


@pytest.fixture
def build(predictive_config):
    def make(**options):
        return PredictiveForPreTraining(predictive_config(**options)).eval()

    return make


@pytest.fixture
def labels():
    generator = torch.Generator().manual_seed(1)
    patches = torch.randint(4, (6, 1, 8, 8), generator=generator)
    return patches.repeat_interleave(4, 2).repeat_interleave(4, 3)  # (6, 1, 32, 32)


def predicted(model, images, pair, layer="y", **columns):
    source = pair.partition("->")[0]
    with torch.no_grad():
        encoded = model.model.encode(images, [source], **columns)[source]
        return model.decoders[pair](encoded[layer]).double()


# ---- the losses


@pytest.mark.parametrize(("target", "distance"), [("l1", abs), ("l2", lambda d: d * d)])
def test_distances_equal_a_loop_over_samples_channels_and_pixels(build, target, distance):
    images = torch.rand(3, 3, 32, 32)
    model = build(target=target)
    with torch.no_grad():
        output = model(images)
    views = model.model.views(images)
    for pair in ("L->ab", "ab->L"):
        guess, truth = predicted(model, images, pair).tolist(), views[pair.partition("->")[2]].tolist()
        errors = [
            distance(guess[i][c][y][x] - truth[i][c][y][x])
            for i in range(3)
            for c in range(len(truth[0]))
            for y in range(32)
            for x in range(32)
        ]
        assert output.parts[pair].item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert output.loss.item() == pytest.approx(sum(output.parts.values()).item())
    assert output.bound is None
    assert list(output.parts) == ["L->ab", "ab->L"]


def test_quantised_targets_equal_a_loop_over_pixels(build):
    images = torch.rand(3, 3, 32, 32)
    model = build(target="quantized", bins=5)
    with torch.no_grad():
        output = model(images)
    lab = rgb_to_lab(images).double()
    ranges = {0: (0.0, 100.0), 1: (-86.183, 98.233), 2: (-107.857, 94.478)}
    for pair, channels in (("L->ab", (1, 2)), ("ab->L", (0,))):
        logits = predicted(model, images, pair)
        assert logits.shape[1:] == (5 ** len(channels), 8, 8)
        total = 0.0
        for i in range(3):
            for y in range(8):
                for x in range(8):
                    place = 0
                    for channel in channels:
                        mean = lab[i, channel, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean().item()
                        low, high = ranges[channel]
                        place = 5 * place + min(int((mean - low) / (high - low) * 5), 4)
                    total += torch.logsumexp(logits[i, :, y, x], 0).item() - logits[i, place, y, x].item()
        assert output.parts[pair].item() == pytest.approx(total / 192, rel=1e-4)


def test_a_label_map_has_its_own_classes_by_majority_and_unlabelled_pixels_do_not_count(build, images, labels):
    labels = labels.clone()
    labels[:, :, 1::4, 1::4] = 3  # one pixel of each 4x4 patch, which the other 15 outvote
    labels[0, :, :16] = 255
    labels[1, :, :4, :2] = -1  # half a patch: the other half still says what it is
    model = build(views=["L", "semantic"], columns=LABELS, pairs=["L->semantic"], target="quantized")
    with torch.no_grad():
        output = model(images, semantic=labels)
    logits = predicted(model, images, "L->semantic").log_softmax(1)
    assert logits.shape == (6, 4, 8, 8)
    errors = []
    for i in range(6):
        for y in range(8):
            for x in range(8):
                patch = labels[i, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten().tolist()
                votes = [patch.count(label) for label in range(4)]
                if any(votes):
                    errors.append(-logits[i, votes.index(max(votes)), y, x].item())
    assert len(errors) == 6 * 64 - 32
    assert output.parts["L->semantic"].item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_the_planes_of_a_label_map_and_a_column_are_predicted_as_they_are_shown(build, images, labels):
    depth = torch.rand(6, 1, 32, 32) * 4
    labels = labels.clone()
    labels[2] = -1
    model = build(views=["L", "semantic", "depth"], columns=LABELS | DEPTH, core_view="L", target="l1")
    columns = {"semantic": labels, "depth": depth}
    with torch.no_grad():
        parts = model(images, **columns).parts
    assert list(parts) == ["L->semantic", "L->depth", "semantic->L", "depth->L"]
    guess = predicted(model, images, "L->depth")
    assert parts["L->depth"].item() == pytest.approx((guess - (depth - 2) / 1.5).abs().mean().item(), rel=1e-5)
    known = [0, 1, 3, 4, 5]
    planes = torch.stack([(labels[known, 0] == label).double() for label in range(4)], 1)
    guess = predicted(model, images, "L->semantic")[known]
    assert parts["L->semantic"].item() == pytest.approx((guess - planes).abs().mean().item(), rel=1e-5)
    assert parts["semantic->L"] > 0  # an unlabelled map is something to predict from all the same


def test_the_best_constant_costs_what_it_must(build):
    """Of one colour, logits that are equal cost log(bins) each channel, and the right value costs nothing."""
    grey = torch.full((2, 3, 32, 32), 0.5)
    model = build(target="quantized", bins=6)
    for decoder in model.decoders.values():
        nn.init.zeros_(decoder.output.weight)
        nn.init.zeros_(decoder.output.bias)
    parts = model(grey).parts
    assert parts["L->ab"].item() == pytest.approx(2 * math.log(6), rel=1e-5)
    assert parts["ab->L"].item() == pytest.approx(math.log(6), rel=1e-5)
    model = build(target="l2", pairs=["ab->L"])
    output = model.decoders["ab->L"].output
    nn.init.zeros_(output.weight)
    nn.init.constant_(output.bias, model.model.views(grey)["L"].mean().item())
    assert model(grey).loss.item() == pytest.approx(0.0, abs=1e-8)


def test_a_coarser_target_is_the_average(build, images):
    model = build(target="l1", target_size=8)
    with torch.no_grad():
        parts = model(images).parts
    views = model.model.views(images)
    for pair in parts:
        coarse = F.avg_pool2d(views[pair.partition("->")[2]].double(), 4)
        assert parts[pair].item() == pytest.approx(
            (predicted(model, images, pair) - coarse).abs().mean().item(), rel=1e-5
        )


@pytest.mark.parametrize("target", ["l1", "l2", "quantized"])
def test_bfloat16_autocast_keeps_targets_and_losses_in_float32(build, images, target):
    model = build(target=target, target_size=16)
    exact = model(images).parts
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    for pair, part in output.parts.items():
        assert part.dtype == torch.float32
        torch.testing.assert_close(part, exact[pair], rtol=0.02, atol=0)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


# ---- who is trained by what


def touched(model):
    parts = {**model.model.encoders, **model.decoders}
    return {name for name, part in parts.items() if any(p.grad is not None and p.grad.any() for p in part.parameters())}


def test_a_pair_trains_its_source_s_encoder_and_its_decoder_alone(build, images):
    model = build(views=["L", "a", "b"], pairs=["L->a", "a->b"])
    there, nobody = torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)
    model(images, present={"L": nobody, "a": there}).loss.backward()
    assert touched(model) == {"a", "a->b"}
    model.zero_grad()
    model(images, present={"b": nobody}).loss.backward()
    assert touched(model) == {"L", "L->a"}  # a is predicted, and its encoder learns nothing from it


@pytest.mark.parametrize("target", ["l1", "l2", "quantized"])
def test_every_parameter_receives_a_gradient(build, images, target):
    model = build(target=target).train()
    model(images).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_what_lies_behind_the_decoded_layer_stays_in_the_graph_untrained(build, images):
    model = build(decode_from="conv", target="quantized").train()
    model(images).loss.backward()
    for name, parameter in model.named_parameters():
        behind = ".hidden." in name or ".y." in name
        assert parameter.grad.any() != behind, name


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["L->ab", "ab->L"]),
        ({"pairs": ["ab->L"]}, ["ab->L"]),
        ({"views": ["L", "a", "b"]}, ["L->a", "L->b", "a->L", "a->b", "b->L", "b->a"]),
        ({"views": ["L", "a", "b"], "core_view": "a"}, ["L->a", "a->L", "a->b", "b->a"]),
    ],
)
def test_directions(build, images, options, names):
    model = build(**options)
    assert list(model(images).parts) == list(model.decoders) == names


def test_a_view_that_predicts_none_has_no_encoder_and_is_not_published(
    build, predictive_config, images, tmp_path, silent
):
    model = build(pairs=["L->ab"])
    assert list(model.model.encoders) == ["L"]
    assert model.model.layer_shapes["y"] == (10,)
    assert model.features(images).shape == (6, 10)
    model.save_pretrained(tmp_path)
    assert torch.equal(PredictiveModel.from_pretrained(tmp_path).features(images), model.features(images))
    sentence = r"^The view 'ab' is predicted and predicts none, so it has no encoder: add a pair 'ab->\.\.\.'\.$"
    with pytest.raises(UsageError, match=sentence):
        model.encode(images, ["ab"])
    with pytest.raises(UsageError, match=sentence):
        PredictiveModel(predictive_config(pairs=["L->ab"], feature_views=["L", "ab"]))


def test_a_column_can_be_what_is_predicted_from(build):
    model = build(views=["L", "depth"], columns=DEPTH, pairs=["depth->L"])
    assert model.model.feature_views == ("depth",)
    assert model(torch.rand(2, 3, 32, 32), depth=torch.rand(2, 1, 32, 32)).loss > 0
    assert model.features(None, depth=torch.rand(2, 1, 32, 32)).shape == (2, 10)


def test_a_later_frame_shares_the_encoder_of_the_view_that_it_is_like(build, images):
    model = build(views=["L", "next_frame"], columns={"next_frame": {"like": "L"}})
    assert list(model.model.encoders) == ["L"]
    assert list(model(images, next_frame=images.flip(-1)).parts) == ["L->next_frame", "next_frame->L"]


# ---- missing views


@pytest.mark.parametrize("target", ["l1", "quantized"])
def test_a_sample_without_source_or_target_takes_no_part(build, images, target):
    depth = torch.rand(6, 1, 32, 32) * 4
    there = torch.tensor([True, False, True, True, False, False])
    model = build(views=["L", "depth"], columns=DEPTH, target=target)
    with torch.no_grad():
        expected = model(images[there], depth=depth[there])
        holed = depth.where(there.view(-1, 1, 1, 1), torch.nan)
        output = model(images, depth=holed, present={"depth": there})
    assert output.parts.keys() == expected.parts.keys()
    for pair, part in expected.parts.items():
        torch.testing.assert_close(output.parts[pair], part)


def test_pairs_of_other_views_keep_all_samples(build, images):
    depth = torch.rand(6, 1, 32, 32)
    model = build(views=["L", "ab", "depth"], columns=DEPTH)
    with torch.no_grad():
        whole = model(images, depth=depth).parts
        parts = model(images, depth=depth, present={"depth": torch.arange(6) < 2}).parts
    assert parts["L->ab"] == whole["L->ab"]
    assert parts["L->depth"] != whole["L->depth"]


def test_a_pair_without_samples_is_zero_and_stays_in_the_graph(build, images):
    model = build(views=["L", "depth"], columns=DEPTH).train()
    missing = torch.full((6, 1, 32, 32), torch.nan)
    output = model(images, depth=missing, present={"depth": torch.zeros(6, dtype=torch.bool)})
    output.loss.backward()
    assert {pair: part.item() for pair, part in output.parts.items()} == {"L->depth": 0.0, "depth->L": 0.0}
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_batch_norm_sees_present_samples_only(build, images):
    depth = torch.rand(6, 1, 32, 32).where(torch.arange(6).view(-1, 1, 1, 1) % 2 == 0, 1e6)
    model = build(views=["L", "depth"], columns=DEPTH).train()
    output = model(images, depth=depth, present={"depth": torch.arange(6) % 2 == 0})
    output.loss.backward()
    assert all(buffer.abs().max() < 100 for buffer in model.buffers())
    assert output.loss < 10


def test_present_samples_stand_in_for_the_missing_in_turn():
    view = torch.arange(5.0).view(5, 1, 1, 1)
    present = torch.tensor([False, True, False, True, False])
    assert stand_in(view, present).flatten().tolist() == [1, 1, 1, 3, 1]
    assert stand_in(view, torch.ones(5, dtype=torch.bool)).flatten().tolist() == [0, 1, 2, 3, 4]
    assert stand_in(view / 0, torch.zeros(5, dtype=torch.bool)).flatten().tolist() == [0] * 5


def test_a_batch_that_lacks_a_view(build, images):
    model = build(views=["L", "depth"], columns=DEPTH)
    with pytest.raises(UsageError, match="The view 'depth' needs 'depth', and the batch has pixel_values"):
        model(images)


# ---- the decoded layer


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv", "fc", "y"])
@pytest.mark.parametrize("target", ["l2", "quantized"])
def test_a_decoder_reads_any_layer(build, images, layer, target):
    output = build(decode_from=layer, target=target)(images)
    assert output.loss.isfinite()


def test_a_decoder_reads_the_grid_of_strided_crops(build, images):
    model = build(patch_size=16, decode_from="patches")
    assert model.decoders["L->ab"].entry[0].in_channels == 10
    assert model(images).loss.isfinite()


def test_a_decoder_is_lighter_than_the_encoder():
    model = PredictiveForPreTraining(PredictiveConfig())
    weights = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_modules()}
    assert weights["decoders.L->ab"] < weights["model.encoders.L"]


# ---- learning


def gradients(number, seed):
    """Smooth images: a hue that depends on the brightness, from one corner to another."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 1, 32)
    slopes = torch.rand(number, 2, 1, 1, generator=generator)
    light = (slopes[:, :1] * ramp.view(1, 1, 1, 32) + slopes[:, 1:] * ramp.view(1, 1, 32, 1)) / 2
    return torch.cat([light, light.square(), 1 - light], dim=1)


@pytest.mark.parametrize("options", [{"target": "l1"}, {"target": "l2"}, {"target": "quantized", "bins": 8}])
def test_it_learns_to_predict_images_that_it_has_not_seen(build, options):
    torch.manual_seed(0)
    model = build(decoder_channels=[16], **options).train()
    unseen = gradients(32, seed=99)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        loss = model(gradients(32, seed=step)).loss
        if step == 0:
            first = loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert model.eval()(unseen).loss < 0.5 * first


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pairs": ["L->b"]}, "Unknown direction of pairs 'L->b': choose one of L->ab, ab->L."),
        ({"pairs": ["L-ab"]}, "Unknown direction of pairs 'L-ab': choose one of L->ab, ab->L."),
        ({"pairs": ["L->L"]}, "Unknown direction of pairs 'L->L': choose one of L->ab, ab->L."),
        ({"pairs": []}, "pairs=[] must name one direction or more, each once."),
        ({"pairs": ["L->ab", "L->ab"]}, "pairs=['L->ab', 'L->ab'] must name one direction or more, each once."),
        (
            {"pairs": ["L->ab"], "core_view": "L"},
            "core_view='L' and pairs=['L->ab'] both say what is predicted: give one of them.",
        ),
        ({"core_view": "b"}, "Unknown core_view 'b': choose one of L, ab."),
        ({"views": ["L"]}, "Predictive learning predicts one view from another, but views=['L'] names a single one."),
        ({"target": "huber"}, "Unknown target 'huber': choose one of l1, l2, quantized."),
        ({"decode_from": "conv9"}, "Unknown decode_from 'conv9': choose one of conv1, conv2, conv, fc, y."),
        ({"target": "quantized", "bins": 1}, "bins=1 leaves nothing to predict: set two or more for each channel."),
        ({"target_size": 33}, "target_size=33 must be from 1 to image_size=32."),
        ({"decoder_channels": []}, "decoder_channels=[] must name one positive number or more."),
        (
            {"target": "quantized", "views": ["L", "normals"], "columns": {"normals": {"channels": 3}}},
            "target='quantized' predicts bins**C classes for C channels, at most two, and the view 'normals' has 3: predict it "
            "with target='l1' or 'l2', or split it into views of fewer channels.",
        ),
    ],
)
def test_a_mistaken_configuration_is_one_sentence(build, options, sentence):
    with pytest.raises(UsageError) as raised:
        build(**options)
    assert str(raised.value) == sentence


def test_the_default_settings():
    config = PredictiveConfig()
    assert (config.color_space, list(config.views), config.representation_size) == ("lab", ["L", "ab"], 128)
    model = PredictiveForPreTraining(config)
    assert (model.layer, model.target_size) == ("y", 32)
    assert model.model.layer_shapes["y"] == (256,)
    assert PredictiveForPreTraining(PredictiveConfig(target="quantized")).target_size == 8
