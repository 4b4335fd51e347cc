import pytest
import torch
import transformers
from transformers import AutoModel

from hf_infomax.evaluation.transformers_encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TransformersEncoder,
    describe,
    square_side,
    tokens_to_map,
)
from hf_infomax.models.errors import UsageError

TOKENS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "image_size": 32}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
MOBILE = {"image_size": 64, "hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16]}
PYRAMID = {"depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8], "image_size": 32}

#: Configuration, its fields, tokens before the patches (None: maps all along), and the shape of the last map.
MODELS = {
    "ViT": (TOKENS, 1, (32, 4, 4)),
    "DeiT": (TOKENS, 2, (32, 4, 4)),
    "Beit": (TOKENS, 1, (32, 4, 4)),
    "Dinov2": (TOKENS, 1, (32, 4, 4)),
    "Dinov2WithRegisters": (TOKENS | {"num_register_tokens": 3}, 4, (32, 4, 4)),
    "DINOv3ViT": (TOKENS | {"num_register_tokens": 4}, 5, (32, 4, 4)),
    "ViTMSN": (TOKENS, 1, (32, 4, 4)),
    "IJepa": (TOKENS, 0, (32, 4, 4)),
    "CLIPVision": (TOKENS, 1, (32, 4, 4)),
    "SiglipVision": (TOKENS, 0, (32, 4, 4)),
    "Swin": (WINDOWS, None, (16, 8, 8)),
    "ConvNext": (STAGES, None, (32, 1, 1)),
    "ResNet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, None, (16, 28, 28)),
    "MobileViT": (MOBILE | {"num_attention_heads": 2}, None, (16, 2, 2)),
    "Segformer": (PYRAMID | {"decoder_hidden_size": 8}, None, (8, 1, 1)),
    "DINOv3ConvNext": (STAGES, None, (32, 1, 1)),
}


def build(name):
    config = getattr(transformers, f"{name}Config")(**MODELS[name][0])
    model = AutoModel.from_config(config).eval()
    return model, TransformersEncoder(model, describe(config, None)).eval()


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_layers_are_the_models_own_hidden_states(name):
    _, prefix, shape = MODELS[name]
    model, encoder = build(name)
    images = torch.rand(2, 3, encoder.config.image_size, encoder.config.image_size)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    plain = model(pixel_values=(images - mean) / std, output_hidden_states=True)
    layers = encoder.layers(images)

    assert tuple(layers) == encoder.feature_layers
    assert tuple(layers["conv"].shape[1:]) == shape
    assert all(layer.dim() == (2 if place == "pool" else 4) for place, layer in layers.items())
    if prefix is None:
        hidden = list(plain.get("reshaped_hidden_states") or plain.hidden_states)
        hidden = hidden[1:] if hidden[0].shape == images.shape else hidden
        torch.testing.assert_close([layers[stage] for stage in encoder.feature_layers[:-2]], hidden[:-1])
    else:
        for place, states in {**dict(enumerate(plain.hidden_states[:-1])), "conv": plain.last_hidden_state}.items():
            layer = layers["conv" if place == "conv" else f"stage{place}"]
            for row in range(4):
                for column in range(4):
                    torch.testing.assert_close(layer[:, :, row, column], states[:, prefix + 4 * row + column])
    pooled = plain.get("pooler_output")
    if pooled is not None:
        torch.testing.assert_close(layers["pool"], pooled.flatten(1))
    elif prefix:
        torch.testing.assert_close(layers["pool"], plain.last_hidden_state[:, 0])
    else:
        torch.testing.assert_close(layers["pool"], layers["conv"].mean(dim=(2, 3)))


@torch.no_grad()
def test_of_images_and_text_the_tower_of_images_is_read():
    vision = transformers.CLIPVisionConfig(**TOKENS)
    words = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text = transformers.CLIPTextConfig(vocab_size=20, bos_token_id=1, eos_token_id=2, pad_token_id=0, **words)
    config = transformers.CLIPConfig(vision_config=vision.to_dict(), text_config=text.to_dict())
    model = AutoModel.from_config(config).eval()
    encoder = TransformersEncoder(model, describe(config, None))
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = model.vision_model(pixel_values=(images - mean) / std).pooler_output
    torch.testing.assert_close(encoder.layers(images)["pool"], expected)
    assert not any("text" in name for name, _ in encoder.named_parameters())


@torch.no_grad()
def test_an_untrained_pooler_is_not_read():
    config = transformers.ViTConfig(**TOKENS)
    model = AutoModel.from_config(config).eval()
    layers = TransformersEncoder(model, describe(config, None, pooler=False)).layers(images := torch.rand(2, 3, 32, 32))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = model(pixel_values=(images - mean) / std).last_hidden_state[:, 0]
    torch.testing.assert_close(layers["pool"], expected)


def test_the_processor_says_how_images_are_prepared():
    config = transformers.ViTConfig(**TOKENS)
    processor = transformers.CLIPImageProcessor(crop_size=48, size={"shortest_edge": 64})
    described = describe(config, processor)
    assert described.image_size == 48
    assert described.image_mean == tuple(processor.image_mean)
    assert described.image_mean != IMAGENET_MEAN
    described = describe(config, transformers.ViTImageProcessor(size={"height": 40, "width": 40}, do_normalize=False))
    assert (described.image_size, described.image_mean, described.image_std) == (40, (0.0,) * 3, (1.0,) * 3)
    assert describe(transformers.ResNetConfig(), None).image_size == 224  # which states none


@torch.no_grad()
def test_a_model_of_bgr_gets_it():
    config = transformers.ResNetConfig(**MODELS["ResNet"][0])
    model = AutoModel.from_config(config).eval()
    described = describe(config, transformers.MobileViTImageProcessor(size={"shortest_edge": 32}, do_center_crop=False))
    assert described.blue_first
    images = torch.rand(2, 3, 32, 32)
    layers = TransformersEncoder(model, described).eval().layers(images)
    torch.testing.assert_close(layers["conv"], model(images[:, [2, 1, 0]]).last_hidden_state)


def test_a_twin_has_the_shapes_and_other_weights():
    _, encoder = build("ViT")
    twin = encoder.random_twin()
    weights, fresh = dict(encoder.named_parameters()), dict(twin.named_parameters())
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in fresh.items()
    }
    drawn = [name for name, value in weights.items() if value.dim() == 2]
    assert drawn
    assert not any(weights[name].equal(fresh[name]) for name in drawn)


def test_later_stages_of_tokens_are_square():
    tokens = torch.arange(2 * 9 * 4.0).view(2, 9, 4)
    torch.testing.assert_close(tokens_to_map(tokens, patches=4)[1, :, 2, 1], tokens[1, 7])
    torch.testing.assert_close(tokens_to_map(tokens, patches=2)[1, :, 0, 1], tokens[1, 6])  # five before them


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9), "BertModel"),
        (transformers.ViTConfig(**TOKENS | {"num_channels": 1}), "ViTModel"),
    ],
)
def test_what_takes_no_images_is_refused(config, sentence):
    with pytest.raises(UsageError, match=sentence):
        TransformersEncoder(AutoModel.from_config(config), describe(config, None))


def test_images_of_another_size_are_refused():
    _, encoder = build("ViT")
    with pytest.raises(UsageError, match="32x32 pixels, not 48x48"):
        encoder.layers(torch.rand(1, 3, 48, 48))
    with pytest.raises(UsageError, match="square images, not 32x48"):
        encoder.layers(torch.rand(1, 3, 32, 48))


def test_no_squares_are_refused():
    with pytest.raises(UsageError, match="squares"):
        square_side((224, 160))
