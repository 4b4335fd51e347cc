from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    Trainer,
    TrainingArguments,
    pipeline,
)

import hf_infomax
from hf_infomax import METHODS, PreTrainingOutput, UsageError
from hf_infomax.models.encoder import flatten_layer

every_method = pytest.mark.parametrize("method", METHODS)
every_method_with_a_bound = pytest.mark.parametrize("method", [name for name in METHODS if name != "predictive"])


#: What makes a method compare augmentations of a batch with each other, which needs no training state.
STATELESS = {
    "instdisc": {"negatives": "batch", "num_negatives": None},
    "infomin": {"negatives": "batch", "encoder_momentum": None, "jigsaw_weight": 0.0},
}


@pytest.fixture
def config(method, request):
    return partial(request.getfixturevalue(f"{method}_config"), **STATELESS.get(method, {}))


def shown(method, images):
    """What a pretraining model without a training state is given: instance discrimination compares two views of each image."""
    return torch.stack([images, images.flip(-1)], dim=1) if method in STATELESS else images


@pytest.fixture
def classes(method):
    return dict(zip(("config", "model", "pretraining", "classification"), METHODS[method], strict=True))


#: Families that differ in how they are initialised, normalised, sized and buffered (the last two keep non-persistent buffers).
FAMILIES = {
    "dim_dcgan": {"backbone_kwargs": {"channels": [8, 16], "hidden_sizes": [24]}},
    "resnet18_cifar": {},
    "convnext_atto": {},
    "vit_tiny_patch16_224": {"backbone_kwargs": {"depth": 2}},
    "efficientnet_b0": {},
    "swin_tiny_patch4_window7_224": {
        "backbone_kwargs": {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}
    },
    "eva02_tiny_patch14_224": {"image_size": 28, "backbone_kwargs": {"depth": 2}},
}


def assert_same(output, expected):
    assert output.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(output[name], value), name


@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_saved_encoder_gives_the_same_bits(backbone, tmp_path, images, silent):
    config = hf_infomax.DIMConfig(backbone=backbone, representation_size=16, **FAMILIES[backbone])
    model = hf_infomax.DIMModel(config)
    with torch.no_grad():
        model(images[..., : config.image_size, : config.image_size])  # batch norms are no longer fresh
        model.eval()
        view = images[..., : config.image_size, : config.image_size]
        expected = model.layers(view)
        model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path)
        assert type(loaded) is hf_infomax.DIMModel
        assert not loaded.training
        assert_same(loaded.layers(view), expected)
        assert all(torch.equal(loaded.features(view, layer), model.features(view, layer)) for layer in expected)


@every_method
def test_the_encoder_loads_from_a_pretraining_checkpoint_without_a_word(
    method, config, classes, tmp_path, images, silent
):
    options = {"alpha": 1.0} if method == "dim" else {}
    pretrained = classes["pretraining"](config(**options)).eval()
    pretrained.save_pretrained(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is classes["model"]
    with torch.no_grad():
        assert_same(encoder.layers(images), pretrained.layers(images))
        again = AutoModelForPreTraining.from_pretrained(tmp_path)
        assert type(again) is classes["pretraining"]
        torch.manual_seed(3)
        expected = pretrained(shown(method, images)).loss
        torch.manual_seed(3)
        assert torch.equal(again(shown(method, images)).loss, expected)
    assert type(AutoConfig.from_pretrained(tmp_path)) is classes["config"]


@every_method
def test_a_classifier_is_a_linear_probe_that_saves(method, config, classes, tmp_path, images, silent):
    model = classes["classification"](config(num_labels=7, classifier_layer="conv")).eval()
    labels = torch.tensor([0, 6, 3, 3, 1, 2])
    with torch.no_grad():
        output = model(images, labels=labels)
        expected = F.linear(model.model.features(images, "conv"), model.classifier.weight, model.classifier.bias)
        torch.testing.assert_close(output.logits, expected)
        torch.testing.assert_close(output.loss, F.cross_entropy(expected, labels))
        assert model(images).loss is None
        model.save_pretrained(tmp_path)
        loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
        assert type(loaded) is classes["classification"]
        assert torch.equal(loaded(images).logits, output.logits)
        assert torch.equal(loaded(images, return_dict=False)[0], output.logits)


@every_method
def test_a_classifier_reads_the_global_vector_unless_told(method, config, classes):
    model = classes["classification"](config(num_labels=4))
    assert model.layer == "y"
    assert model.classifier.in_features == model.model.layer_shapes["y"][0]
    with pytest.raises(UsageError, match=r"^Unknown classifier_layer 'z': choose one of .*\by\b"):
        classes["classification"](config(classifier_layer="z"))


@every_method
def test_a_classifier_starts_from_a_pretraining_checkpoint(method, config, classes, tmp_path, images):
    pretrained = classes["pretraining"](config()).eval()
    pretrained.save_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=7)
    assert_same(model.model.layers(images), pretrained.layers(images))
    bound = 1 / model.classifier.in_features**0.5  # nn.Linear's own initialisation
    assert 0.5 * bound < model.classifier.weight.abs().max() <= bound


@every_method
def test_an_image_processor_and_a_pipeline_come_with_the_model(method, config, classes, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    model = classes["model"](config()).eval()
    model.save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    values = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(values[0], torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert processor(Image.fromarray(pixels[:20, :24, 0]), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)

    extract = pipeline("image-feature-extraction", model=str(tmp_path), device="cpu")
    features = torch.tensor(extract(Image.fromarray(pixels)))
    with torch.no_grad():
        torch.testing.assert_close(features, model(values).last_hidden_state)


@every_method
def test_outputs_of_the_encoder(method, config, classes, images):
    model = classes["model"](config()).eval()
    views = len(model.encoders)
    with torch.no_grad():
        output = model(images)
        assert output.last_hidden_state.shape == (6, 16 * views, 4, 4)
        assert output.pooler_output.shape == (6, 10 * views)
        assert output.hidden_states is None
        for one, other in zip(model(images, return_dict=False), output.to_tuple(), strict=True):
            assert torch.equal(one, other)

        layers = model.layers(images)
        assert tuple(layers) == model.feature_layers == ("conv1", "conv2", "conv", "fc", "y")
        assert {name: tuple(value.shape[1:]) for name, value in layers.items()} == model.layer_shapes
        hidden = model(images, output_hidden_states=True).hidden_states
        for one, name in zip(hidden, ("conv1", "conv2", "conv"), strict=True):
            assert torch.equal(one, layers[name])

        for name, layer in layers.items():
            encoded = [layers[name] for layers in model.encode(images).values()]
            assert torch.equal(layer, torch.cat(encoded, dim=1))


@every_method
def test_features_are_float32_without_gradient(method, config, classes, images):
    for kind in ("model", "pretraining"):
        model = classes[kind](config()).eval()
        assert torch.equal(model.features(images), model.features(images, "y"))
        for name, layer in model.layers(images).items():
            features = model.features(images, name)
            assert not features.requires_grad
            torch.testing.assert_close(features, flatten_layer(layer.detach()))
        assert torch.equal(model.features(images, "conv", pool=2), flatten_layer(model.layers(images)["conv"], 2))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model.features(images, "conv2").dtype == torch.float32


@every_method
@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 4, 32, 32), (3, 32, 32)])
def test_images_that_are_not_rgb(method, config, classes, shape):
    with pytest.raises(
        UsageError, match=r"must be \(batch, 3, height, width\) RGB.* convert the images to RGB first\.$"
    ):
        classes["model"](config())(torch.rand(shape))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"color_space": "hsl"},
            "Unknown color_space 'hsl': choose one of rgb, linear_rgb, xyz, lab, ycbcr, ydbdr, yuv, hsv, hed.",
        ),
        ({"views": ["L", "xyz"]}, "View 'xyz' is no run of the channels Lab of color_space 'lab'."),
        ({"views": []}, "views=[] must name one view or more, each once."),
        ({"views": ["L", "L"]}, "views=['L', 'L'] must name one view or more, each once."),
        ({"views": ["L"]}, "CMC contrasts one view with another, but views=['L'] names a single one."),
        ({"bound": "mine"}, "Unknown bound 'mine': choose one of infonce, dv, jsd, nce."),
    ],
)
def test_a_mistaken_configuration_is_one_sentence(cmc_config, options, sentence):
    with pytest.raises(UsageError) as raised:
        hf_infomax.CMCForPreTraining(cmc_config(**options))
    assert str(raised.value) == sentence


@every_method
def test_parameter_groups_cover_every_parameter_once(method, config, classes):
    model = classes["pretraining"](config())
    frozen = next(model.parameters()).requires_grad_(False)
    groups = model.parameter_groups(learning_rate=0.01, weight_decay=0.3)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p is not frozen)
    for group in groups:
        assert {parameter.dim() > 1 for parameter in group["params"]} == {group["weight_decay"] == 0.3}
        assert group["weight_decay"] in (0.0, 0.3)
        assert group["lr"] == 0.01
    torch.optim.AdamW(groups)


@pytest.mark.parametrize(
    ("backbone", "options"), [("resnet18_cifar", None), ("vit_tiny_patch16_224", {"depth": 2, "num_heads": 2})]
)
def test_gradient_checkpointing_gives_equal_gradients(dim_config, backbone, options, images):
    model = hf_infomax.DIMForPreTraining(dim_config(backbone=backbone, gamma=0.0, backbone_kwargs=options)).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # the second forward pass would update the statistics once more
    last = [module for module in model.modules() if type(module).__name__ in ("BasicBlock", "Block")][-1]
    passes, gradients = [], {}
    last.register_forward_pre_hook(lambda *_: passes.append(1))
    for mode in ("plain", "checkpointed", "plain again"):
        if mode == "checkpointed":
            model.gradient_checkpointing_enable()
        elif mode == "plain again":
            model.gradient_checkpointing_disable()
        model.zero_grad()
        passes.clear()
        model(images).loss.backward()
        assert len(passes) == (2 if mode == "checkpointed" else 1)
        gradients[mode] = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(gradients["checkpointed"], gradients["plain"])


@every_method
def test_training_state_is_nothing_for_in_batch_methods(method, config, classes):
    assert classes["pretraining"](config()).training_state(100, torch.device("cpu")) is None


@every_method_with_a_bound
@pytest.mark.parametrize("bound", ["infonce", "dv", "jsd"])
def test_bound_is_nats_or_none(method, config, classes, images, bound):
    images = shown(method, images)
    output = classes["pretraining"](config(bound=bound))(images)
    assert isinstance(output, PreTrainingOutput)
    assert (output.bound is None) == (bound == "jsd")
    assert output.loss.requires_grad
    assert not any(part.requires_grad for part in output.parts.values())
    as_tuple = classes["pretraining"](config(bound=bound))(images, return_dict=False)
    assert [type(value) for value in as_tuple] == [type(value) for value in output.to_tuple()]


def test_compose_sums_weighted_parts():
    one, two, extra = (torch.tensor(value, requires_grad=True) for value in (2.0, 4.0, 5.0))
    output = PreTrainingOutput.compose("dv", {"a": (0.5, one), "b": (3.0, two)}, {"c": (0.1, extra)})
    assert output.loss.item() == pytest.approx(0.1 * 5 - 0.5 * 2 - 3 * 4)
    assert output.bound.item() == 3.0
    assert {name: part.item() for name, part in output.parts.items()} == {"a": 2.0, "b": 4.0, "c": 5.0}
    assert PreTrainingOutput.compose("infonce", {}, {"c": (1.0, extra)}).bound is None


@every_method_with_a_bound
@pytest.mark.parametrize("bound", ["infonce", "dv", "jsd"])
def test_bfloat16_autocast_keeps_scores_and_losses_in_float32(method, config, classes, images, bound):
    model = classes["pretraining"](config(bound=bound))
    seen = []
    estimator = model.bound
    model.bound = lambda positive, negative: (
        seen.extend([positive.dtype, negative.dtype]) or estimator(positive, negative)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.layers(images)["y"].dtype == torch.bfloat16
        output = model(shown(method, images))
    assert set(seen) == {torch.float32}
    assert output.loss.dtype == torch.float32
    assert {part.dtype for part in output.parts.values()} == {torch.float32}
    output.loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


def training(tmp_path, **options):
    return TrainingArguments(
        output_dir=str(tmp_path),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        seed=0,
        **options,
    )


@every_method
def test_transformers_trainer_trains(method, config, classes, tmp_path):
    model = classes["pretraining"](config())
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    dataset = [{"pixel_values": pixels} for pixels in shown(method, torch.rand(16, 3, 32, 32))]
    arguments = training(tmp_path, max_steps=3, per_device_train_batch_size=16, learning_rate=1e-3, logging_steps=1)
    trainer = Trainer(model, arguments, train_dataset=dataset)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@every_method
def test_transformers_trainer_accumulates_the_gradients_of_a_larger_batch(method, config, classes, tmp_path):
    """Twice 4 images give the step of once 8: the loss is a mean, and the Trainer must know it."""
    dataset = [{"pixel_values": pixels, "labels": i % 3} for i, pixels in enumerate(torch.rand(8, 3, 32, 32))]
    sizes = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}  # without batch norm, whose statistics differ by batch
    steps = {}
    for accumulation in (1, 2):
        torch.manual_seed(0)
        model = classes["classification"](config(backbone="convnext_atto", backbone_kwargs=sizes, num_labels=3))
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        arguments = training(
            tmp_path,
            max_steps=1,
            per_device_train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation,
            learning_rate=0.1,
            max_grad_norm=0.0,
            optim="sgd",
        )
        Trainer(model, arguments, train_dataset=dataset).train()
        steps[accumulation] = {name: weight.detach() - before[name] for name, weight in model.named_parameters()}
    torch.testing.assert_close(steps[2], steps[1], rtol=1e-3, atol=1e-6)
    assert max(step.abs().max() for step in steps[1].values()) > 1e-3
