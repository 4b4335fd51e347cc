import pytest
import torch

from hf_infomax.evaluation import extract_features, pixel_features
from hf_infomax.evaluation.feature_cache import cached_features
from hf_infomax.evaluation.features import choose_layers
from hf_infomax.models.errors import UsageError
from tests.evaluation.forked import meet, needs_fork, run_two


def test_every_layer_in_one_pass_over_the_images(model, pixels):
    features = extract_features(model, pixels, batch_size=4, progress=False)
    assert [count for count, _, _ in model.seen] == [4, 4, 2]
    assert {name: tuple(values.shape) for name, values in features.items()} == {
        "conv": (10, 256),
        "wide": (10, 160),  # 160 * 8 * 8 = 10,240 values: more than 4,096, so averaged over space
        "y": (10, 5),
    }
    assert all(values.dtype == torch.float32 and values.device.type == "cpu" for values in features.values())


def test_features_are_those_of_the_model_in_evaluation_mode(model, pixels):
    features = extract_features(model, pixels, ["conv"], batch_size=3, progress=False)
    with torch.no_grad():
        expected = model.eval().layers(pixels.float() / 255)["conv"].flatten(1)
    torch.testing.assert_close(features["conv"], expected)
    assert list(features) == ["conv"]


def test_images_arrive_in_unit_range(model, pixels):
    extract_features(model, torch.full_like(pixels, 255), progress=False)
    extract_features(model, torch.ones(2, 3, 16, 16), progress=False)
    assert [highest for _, _, highest in model.seen] == [1.0, 1.0]


def test_each_module_gets_its_own_mode_back(model, pixels):
    model.train()
    model.norm.eval()  # frozen
    extract_features(model, pixels, progress=False)
    assert not model.seen[0][1]
    assert model.training
    assert not model.norm.training


def test_the_mode_comes_back_after_an_error(model, pixels):
    model.train()
    model.layers = None
    with pytest.raises(TypeError):
        extract_features(model, pixels, progress=False)
    assert model.training


def test_features_may_enter_a_later_graph(model, pixels):
    features = extract_features(model, pixels, ["y"], progress=False)["y"]
    probe = torch.nn.Linear(5, 2)
    probe(features).sum().backward()
    assert probe.weight.grad is not None


def test_autocast_stays_close_and_returns_float32(model, pixels):
    exact = extract_features(model, pixels, ["conv"], progress=False)["conv"]
    rounded = extract_features(model, pixels, ["conv"], precision="bf16", progress=False)["conv"]
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=0.03, rtol=0.03)


def test_pool_is_passed_on(model, pixels):
    assert extract_features(model, pixels, ["conv"], progress=False, pool="avg")["conv"].shape == (10, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["convv"]}, "'convv': choose one of conv, wide, y"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"pixels": torch.zeros(2, 1, 8, 8)}, r"\(2, 1, 8, 8\)"),
        ({"pixels": torch.zeros(2, 3, 8, 8, dtype=torch.int64)}, "torch.int64"),
        ({"pixels": torch.zeros(0, 3, 8, 8)}, "no images"),
    ],
)
def test_mistakes_are_named(model, pixels, options, message):
    with pytest.raises(UsageError, match=message):
        extract_features(model, **({"pixels": pixels, "progress": False} | options))


def test_pixels_are_scaled_and_flattened(pixels):
    features = pixel_features(pixels)["pixels"]
    assert features.shape == (10, 3 * 16 * 16)
    torch.testing.assert_close(features[1], pixels[1].flatten() / 255)


def shared(rank, model, pixels, folder):
    """What one of two processes finds: with others, with too few images for both, alone, and twice by way of the disk."""
    meet(rank, folder)
    model.seen.clear()
    found = {"shared": extract_features(model, pixels, batch_size=2, progress=False, share=True)}
    found["batches"] = [count for count, _, _ in model.seen]
    found["few"] = extract_features(model, pixels, progress=False, share=True)  # one batch for two
    found["alone"] = extract_features(model, pixels, progress=False)
    for again in ("first read", "second read"):
        torch.distributed.barrier()  # what one finds the other has not just written
        model.seen.clear()
        features = cached_features(model, pixels, ["y"], batch_size=2, progress=False, share=True)
        found[again] = (features["y"].clone(), len(model.seen))
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@needs_fork
def test_two_processes_share_the_images_and_both_have_all(model, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_INFOMAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as they have, for the last bit
    expected = {size: extract_features(model, pixels, batch_size=size, progress=False) for size in (2, 512)}
    run_two(shared, model, pixels, tmp_path)
    torch.set_num_threads(threads)
    for rank, batches in ((0, [2, 2, 2]), (1, [2, 2])):  # of 10 images
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["batches"] == batches
        for kind, size in (("shared", 2), ("few", 512), ("alone", 512)):
            assert list(found[kind]) == list(expected[size])
            assert all(found[kind][name].equal(values) for name, values in expected[size].items())
        for again, passes in (("first read", len(batches)), ("second read", 0)):
            assert found[again][0].equal(expected[2]["y"])
            assert found[again][1] == passes
    assert len(list((tmp_path / "cache" / "features").glob("*.safetensors"))) == 1


def test_a_process_alone_shares_with_nobody(model, pixels):
    alone = extract_features(model, pixels, progress=False, share=True)
    for name, values in extract_features(model, pixels, progress=False).items():
        assert alone[name].equal(values)


def test_layers_are_all_or_those_asked_for(model):
    assert choose_layers(model, None) == ("conv", "wide", "y")
    assert choose_layers(model, ["y", "conv"]) == ("y", "conv")
