import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models import save_for_hf

import hf_infomax
from hf_infomax.evaluation.encoders import load_encoder, random_twin
from hf_infomax.evaluation.features import extract_features
from hf_infomax.evaluation.transformers_encoder import TransformersEncoder
from hf_infomax.models.errors import UsageError

SMALL = {"backbone_kwargs": {"channels": [4, 8, 8], "hidden_sizes": [8]}, "image_mean": (0.3, 0.4, 0.5)}
TOKENS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def same_layers(found, expected):
    assert found.feature_layers == expected.feature_layers
    images = torch.rand(2, 3, found.config.image_size, found.config.image_size)
    with torch.no_grad():
        torch.testing.assert_close(found.layers(images), expected.eval().layers(images))


@pytest.mark.parametrize("inner", ["", "model"], ids=["of a model", "of a run"])
@pytest.mark.parametrize("kind", [hf_infomax.DIMModel, hf_infomax.DIMForPreTraining])
def test_a_folder_of_this_package(tmp_path, inner, kind):
    model = kind(hf_infomax.DIMConfig(**SMALL))
    model.save_pretrained(tmp_path / inner)
    encoder = load_encoder(str(tmp_path))
    assert isinstance(encoder, hf_infomax.DIMModel)
    assert not encoder.training
    same_layers(encoder, model)
    fresh = load_encoder(str(tmp_path), pretrained=False)
    assert fresh.config.image_mean == encoder.config.image_mean
    assert not fresh.encoders["RGB"].y.weight.equal(encoder.encoders["RGB"].y.weight)


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k"])
def test_timm_by_name(name):
    encoder = load_encoder(f"timm/{name}", pretrained=False)
    stated = timm.get_pretrained_cfg(name)
    assert tuple(encoder.config.image_mean) == tuple(stated.mean)
    assert encoder.config.image_size == stated.input_size[-1]
    assert encoder.feature_layers == ("act1", "layer1", "layer2", "layer3", "conv", "pool")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet10_cifar", {"channels": [8, 8, 16, 16]}),
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}),
    ],
)
@pytest.mark.parametrize("written_by", ["timm", "transformers"])
def test_a_folder_in_timms_format(tmp_path, name, arguments, written_by):
    model = timm.create_model(name, num_classes=3, **arguments).eval()
    size = arguments.get("img_size", 32)
    model.pretrained_cfg = model.pretrained_cfg | {"input_size": (3, size, size), "mean": (0.1, 0.2, 0.3)}
    if written_by == "timm":
        save_for_hf(model, tmp_path, model_args=arguments, safe_serialization=True)
    else:
        config = transformers.TimmWrapperConfig(
            architecture=name, pretrained_cfg=model.pretrained_cfg, model_args=arguments
        )
        wrapper = transformers.TimmWrapperModel(config)
        wrapper.timm_model.load_state_dict(model.state_dict(), strict=False)  # it has no classifier
        wrapper.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    images = torch.rand(2, 3, size, size)
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        final = model.forward_features((images - mean) / std)
        pooled = model.forward_head(final, pre_logits=True)
        torch.testing.assert_close(encoder.layers(images)["pool"], pooled)
    assert encoder.config.image_size == size
    fresh = load_encoder(str(tmp_path), pretrained=False)
    assert fresh.feature_layers == encoder.feature_layers
    with torch.no_grad():
        assert not fresh.layers(images)["pool"].allclose(pooled)


@torch.no_grad()
def test_a_folder_of_transformers_with_its_processor(tmp_path, pixels):
    model = transformers.AutoModel.from_config(transformers.Dinov2Config(**TOKENS)).eval()
    model.save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16}, image_std=[0.25] * 3)
    processor.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert encoder.config.image_size == 16
    features = extract_features(encoder, pixels, ["pool"], progress=False)["pool"]
    torch.testing.assert_close(features, model((pixels / 255 - 0.5) / 0.25).pooler_output)
    assert load_encoder(str(tmp_path), pretrained=False).feature_layers == encoder.feature_layers


@torch.no_grad()
def test_a_pooler_that_the_checkpoint_lacks_is_not_read(tmp_path):
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**TOKENS)).eval()
    model.save_pretrained(tmp_path)
    images = torch.rand(2, 3, 32, 32)
    encoder = load_encoder(str(tmp_path))
    expected = model.vit((images - encoder.mean) / encoder.std).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder.layers(images)["pool"], expected)


@torch.no_grad()
def test_masked_autoencoders_see_the_whole_image(tmp_path):
    model = transformers.ViTMAEModel(transformers.ViTMAEConfig(**TOKENS)).eval()
    model.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    images = torch.rand(2, 3, 32, 32)
    model.config.mask_ratio = 0.0
    in_order = torch.arange(16.0).expand(2, 16)
    whole = model((images - encoder.mean) / encoder.std, noise=in_order).last_hidden_state
    layers = encoder.layers(images)
    torch.testing.assert_close(layers["conv"].flatten(2).transpose(1, 2), whole[:, 1:])
    torch.testing.assert_close(layers["pool"], whole[:, 0])


def test_weights_in_half_precision_are_read_in_full(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**TOKENS)).half().save_pretrained(tmp_path)
    assert {weight.dtype for weight in load_encoder(str(tmp_path)).parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["run", "timm", "transformers"])
def test_a_random_twin_is_of_the_same_architecture(tmp_path, kind):
    if kind == "timm":
        encoder = load_encoder("timm/resnet10_cifar", pretrained=False)
    else:
        model = hf_infomax.DIMModel(hf_infomax.DIMConfig(**SMALL))
        if kind == "transformers":
            model = transformers.ViTModel(transformers.ViTConfig(**TOKENS))
        model.save_pretrained(tmp_path)
        encoder = load_encoder(str(tmp_path))
    twin = random_twin(encoder)
    assert isinstance(encoder, TransformersEncoder) == (kind == "transformers")
    assert type(twin) is type(encoder)
    assert twin.feature_layers == encoder.feature_layers
    weights = [(a, b) for a, b in zip(encoder.parameters(), twin.parameters(), strict=True) if a.dim() > 1]
    assert not any(a.equal(b) for a, b in weights if a.std() > 0)
    assert all(a.shape == b.shape for a, b in weights)
    torch.manual_seed(3)
    first = random_twin(encoder)
    torch.manual_seed(3)
    same_layers(random_twin(encoder), first)


def test_a_model_of_text_is_refused(tmp_path):
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="BertModel has no encoder of images"):
        load_encoder(str(tmp_path))


def test_a_timm_model_of_other_channels_is_refused(tmp_path):
    model = timm.create_model("resnet10_cifar", num_classes=0, in_chans=1)
    model.pretrained_cfg = model.pretrained_cfg | {"input_size": (1, 32, 32)}
    save_for_hf(model, tmp_path, safe_serialization=True)
    with pytest.raises(UsageError, match="1 channels"):
        load_encoder(str(tmp_path))


def test_what_is_not_there_is_named(tmp_path):
    for name in (str(tmp_path / "none"), str(tmp_path), "somebody/something"):
        with pytest.raises(UsageError, match=f"No model can be loaded from '{name}'.*timm/NAME"):
            load_encoder(name)
    with pytest.raises(UsageError, match="Unknown timm model 'resnet81': did you mean"):
        load_encoder("timm/resnet81")
    with pytest.raises(UsageError, match=r"timm/resnet18_cifar cannot be loaded .*pretrained=false"):
        load_encoder("timm/resnet18_cifar")


def test_a_folder_without_its_weights_is_named(tmp_path):
    transformers.ViTConfig(**TOKENS).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="No model can be loaded"):
        load_encoder(str(tmp_path))
    timm_folder = tmp_path / "timm"
    save_for_hf(timm.create_model("resnet10_cifar", num_classes=0), timm_folder, safe_serialization=True)
    (timm_folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="No model can be loaded"):
        load_encoder(str(timm_folder))


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_weights_of_another_model_are_refused(tmp_path, kind):
    if kind == "timm":
        model = timm.create_model("resnet10_cifar", num_classes=0, channels=[8, 8, 8, 8])
        save_for_hf(model, tmp_path, model_args={"channels": [8, 8, 8, 8]}, safe_serialization=True)
    else:
        model = transformers.ViTModel(transformers.ViTConfig(**TOKENS))
        model.save_pretrained(tmp_path)
    weights = {f"other.{name}": value for name, value in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"Missing key.*conv1.weight|lacks .* weights of ViTModel"):
        load_encoder(str(tmp_path))
