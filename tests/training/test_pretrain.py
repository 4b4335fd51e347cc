import itertools
import json
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

from checkpoint import Progress
from hf_infomax import UsageError
from hf_infomax.data import DecodedDataset
from hf_infomax.data import recipes as view_recipes
from hf_infomax.evaluation import HEALTH, LABEL_FREE
from metrics import Metrics, read_history
from monitor import Monitor
from pretrain import all_shown, learning_rate_factor, main, train, views_drawn_at
from recipe import TrainRecipe, load_recipe
from sources import training_loader


def run(recipe, overrides):
    return train(load_recipe(recipe, overrides))


@pytest.mark.parametrize("recipe", ["dim_colour_digits_cpu", "cmc_colour_digits_cpu"])
def test_a_run_leaves_what_the_house_plan_says(recipe, tiny):
    out = run(recipe, tiny())
    history = read_history(out)
    steps = [record for record in history if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3, 4, 5, 6]
    assert {"step", "epoch", "loss", "bound", "images_per_second"} <= set(steps[0])
    assert [record["epoch"] for record in history if "knn" in record] == [1.0, 2.0]
    health = [record["health"] for record in history if "health" in record]
    assert [set(HEALTH) | {"layer", "units", "warnings"}] * 2 == [set(record) for record in health]
    results = json.loads((out / "results.json").read_text())
    assert {row["metric"]: row["value"] for row in results["rows"] if row["probe"] == LABEL_FREE} == {
        name: health[-1][name] for name in HEALTH
    }
    assert results["run"]["images_seen"] == 6 * 32
    assert {"recipe", "seconds", "images_per_second", "hardware", "versions"} <= set(results["run"])
    assert {row["layer"] for row in results["rows"] if row["probe"] == "knn20"} == {"conv1", "conv2", "conv", "fc", "y"}
    assert all(row["split"] == "train[100:140]" for row in results["rows"])
    assert {path.name for path in out.glob("*.png")} == {"training.png", "knn.png"}
    # safetensors, JSON, YAML, pictures and the travelling source files: never a pickle
    assert {path.suffix for path in out.rglob("*") if path.is_file()} <= {
        ".safetensors",
        ".json",
        ".jsonl",
        ".yaml",
        ".png",
        ".py",
    }
    model = AutoModel.from_pretrained(out / "model")
    assert model(torch.rand(2, 3, 32, 32)).pooler_output.isfinite().all()


def test_the_saved_model_is_the_trained_one(tiny):
    out = run("dim_colour_digits_cpu", tiny())
    last = sorted((out / "checkpoints").iterdir())[-1]
    trained, published = load_file(last / "model.safetensors"), load_file(out / "model" / "model.safetensors")
    assert trained.keys() == published.keys()
    assert all(torch.equal(trained[name], published[name]) for name in trained)


def interrupt_at(monkeypatch, step):
    """Send the Ctrl-C of a user while the step is under way."""
    log = Metrics.log

    def log_and_interrupt(self, output, progress, *rest):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        log(self, output, progress, *rest)

    monkeypatch.setattr(Metrics, "log", log_and_interrupt)


@pytest.mark.parametrize("step", [2, 3, 5])  # within an epoch, at its end, in the next one
def test_a_resumed_run_equals_an_uninterrupted_one(step, tiny, monkeypatch):
    views = [
        "views.recipe=crop_flip",
        "model.num_negatives=5",
        "train.schedule=cosine",
    ]  # all that draws random numbers
    whole = run("dim_colour_digits_cpu", tiny(*views, out="whole"))
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(KeyboardInterrupt, match=f"step {step}"):
            run("dim_colour_digits_cpu", tiny(*views, out="parts"))
    parts = run("dim_colour_digits_cpu", tiny(*views, "resume=true", out="parts"))
    one, other = (load_file(out / "model" / "model.safetensors") for out in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [[record["loss"] for record in read_history(out) if "loss" in record] for out in (whole, parts)]
    assert losses[0] == losses[1]


def whole_and_in_parts(recipe, settings, step, tiny, monkeypatch):
    """The folders of a run, and of the same one that was interrupted and resumed."""
    whole = run(recipe, tiny(*settings, out="whole"))
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(KeyboardInterrupt, match=f"step {step}"):
            run(recipe, tiny(*settings, out="parts"))
    return whole, run(recipe, tiny(*settings, "resume=true", out="parts"))


BANK = (
    "model.negatives=bank",
    "model.num_negatives=20",
    "model.bound=nce",
    "views.recipe=crop_flip",
    "train.schedule=cosine",
)


@pytest.mark.parametrize("step", [2, 3])
def test_a_run_with_a_memory_bank_resumes_as_exactly(step, tiny, monkeypatch):
    whole, parts = whole_and_in_parts("cmc_colour_digits_cpu", (*BANK, "eval.every=0"), step, tiny, monkeypatch)
    last = [sorted((out / "checkpoints").iterdir())[-1] for out in (whole, parts)]
    for file in ("model.safetensors", "state/L/rows-0-of-1.safetensors", "state/ab/rows-0-of-1.safetensors"):
        one, other = (load_file(folder / file) for folder in last)
        assert all(torch.equal(one[name], other[name]) for name in one)
    published = load_file(whole / "model" / "model.safetensors")
    assert sum(tensor.numel() for tensor in published.values()) < 50_000  # no bank is published


ANNULUS = (
    "data.dataset=hf_infomax/colour_digits",
    "model.ball_size=60",
    "model.num_negatives=40",
    "model.num_clusters=9",
    "model.anneal_epochs=1.5",
    "train.warmup_steps=0",
    "eval.every=0",
)


@pytest.mark.parametrize("step", [2, 3, 5])
def test_neighbours_resume_as_exactly(step, tiny, monkeypatch):
    whole, parts = whole_and_in_parts("ann_plus_cifar10_cpu", ANNULUS, step, tiny, monkeypatch)
    losses, parts_of = (
        [[record[key] for record in read_history(out)] for out in (whole, parts)] for key in ("loss", "parts")
    )
    assert losses[0] == losses[1]
    assert parts_of[0] == parts_of[1]
    last = [sorted((out / "checkpoints").iterdir())[-1] for out in (whole, parts)]
    for file in ("model.safetensors", "state/RGB/rows-0-of-1.safetensors", "state/RGB/neighbors.safetensors"):
        one, other = (load_file(folder / file) for folder in last)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert (last[0] / "state" / "state.json").read_text() == (last[1] / "state" / "state.json").read_text()


QUEUE = (
    "data.dataset=hf_infomax/colour_digits",
    "model.queue_size=70",  # no multiple of a batch
    "model.key_group=8",
    "train.warmup_steps=0",
    "eval.every=0",
)


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_queue_and_a_momentum_copy_resume_as_exactly(step, tiny, monkeypatch):
    whole, parts = whole_and_in_parts("infomin_cifar10_cpu", QUEUE, step, tiny, monkeypatch)
    losses = [[record["loss"] for record in read_history(out)] for out in (whole, parts)]
    assert losses[0] == losses[1]
    last = [sorted((out / "checkpoints").iterdir())[-1] for out in (whole, parts)]
    for file in ("model.safetensors", "state/momentum.safetensors", "state/RGB/queue.safetensors"):
        one, other = (load_file(folder / file) for folder in last)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file
    copy, model = (load_file(last[0] / file) for file in ("state/momentum.safetensors", "model.safetensors"))
    assert not all(torch.equal(copy[name], model[name]) for name in model)
    published = load_file(whole / "model" / "model.safetensors")
    assert published.keys() == model.keys()  # neither copy nor queue is published


def test_a_stream_fills_a_queue_as_it_comes(tiny):
    settings = ("data.streaming=true", "data.train_split=train", "train.max_steps=4")
    out = run("moco_v2_cifar10_cpu", tiny(*QUEUE, *settings))
    history = [record for record in read_history(out) if "loss" in record]
    assert history[0]["bound"] == 0  # among no negatives
    assert history[-1]["bound"] != 0
    last = sorted((out / "checkpoints").iterdir())[-1]
    assert (load_file(last / "state" / "RGB" / "queue.safetensors")["samples"] == -1).all()


def test_every_image_has_a_row_of_the_bank(tiny):
    out = run("cmc_colour_digits_cpu", tiny(*BANK, "train.gradient_accumulation=3", "eval.every=0", "train.epochs=1"))
    last = sorted((out / "checkpoints").iterdir())[-1]
    (folder,) = (last / "state" / "L").iterdir()
    assert load_file(folder)["valid"].sum() == 100  # of 100; an epoch's three batches of 32 would leave four out


def test_views_are_drawn_anew_wherever_an_image_may_be_shown_again():
    epochs = [Progress(epoch=epoch, batch=batch) for epoch in (0, 1) for batch in range(3)]
    assert [views_drawn_at(progress, 3, replacement=False) for progress in epochs] == [0, 0, 0, 1, 1, 1]
    assert [views_drawn_at(progress, 3, replacement=True) for progress in epochs] == list(range(6))


@pytest.mark.parametrize(
    ("options", "drawn"), [((), True), (("data.replacement=false",), False), (("model.negatives=batch",), False)]
)
def test_a_memory_bank_has_images_drawn_with_replacement(options, drawn, tiny, monkeypatch):
    asked = []

    def loader(recipe, image_size, accelerator, replacement):
        asked.append(replacement)
        return training_loader(recipe, image_size, accelerator, replacement)

    monkeypatch.setattr("pretrain.training_loader", loader)
    run("cmc_colour_digits_cpu", tiny("model.negatives=bank", "model.num_negatives=20", *options, "eval.every=0"))
    assert asked == [drawn]


def test_a_run_without_a_bank_cannot_go_on_with_one(tiny, capsys):
    run("cmc_colour_digits_cpu", tiny("eval.every=0"))
    bank = tiny("model.negatives=bank", "model.num_negatives=20", "eval.every=0", "resume=true")
    assert main(["cmc_colour_digits_cpu", *bank]) == 2
    assert "has no memory bank or queue, which the recipe asks for" in capsys.readouterr().err


def test_a_bank_is_filled_with_views_that_no_step_has(tiny):
    images = DecodedDataset(torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8))
    views = view_recipes.load("simclr", image_size=32, crops=0)
    (batch,) = all_shown(images, 10, views, Accelerator(cpu=True), epoch=0)
    for epoch in range(3):
        same = views(images.pixels, sample_index=torch.arange(10), epoch=epoch)["pixel_values"]
        assert not any(torch.equal(one, other) for one, other in zip(batch["pixel_values"], same, strict=True))


def test_frames_flow_and_depth_are_views_of_a_run(tiny):
    options = [
        "data.config=clips",
        "data.train_split=train",
        "data.eval_split=null",
        "train.batch_size=8",
        "data.flow={flow: 4}",
        "data.columns={depth: values}",
        "data.frames={next_frame: 2}",
        "model.views=[RGB,next_frame,flow,depth]",
        "model.columns={next_frame: {like: RGB}, flow: {channels: 8}, depth: {std: 4000}}",
        "model.image_size=32",
        "train.epochs=1",
    ]
    out = run("cmc_scenes_clips_cpu", tiny(*options))
    steps = [record for record in read_history(out) if "loss" in record]
    assert all(record["loss"] == record["loss"] for record in steps)  # no NaN, though the last frames have no next one
    assert {"RGB->flow", "depth->RGB"} <= set(steps[0]["parts"])
    assert "next_frame->flow" not in steps[0]["parts"]  # RGB is the core view


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.columns={deptj: values}", "the dataset has no column 'deptj': its columns of images are image, depth"),
        ("model.views=[L,ab,dept]", "View 'dept' is no run of the channels Lab of color_space 'lab'."),
        ("model.negatives=bank", "A memory bank keeps vectors, not patches"),
    ],
)
def test_views_that_are_not_there_are_one_sentence(override, sentence, tiny, capsys):
    small = tiny("data.train_split=train", "data.eval_split=null", "train.batch_size=8", "model.image_size=32")
    assert main(["cmc_scenes_cpu", *small, "data.columns={depth: values, normals: normals}", override]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_a_second_interrupt_ends_at_once(tiny, monkeypatch):
    def log(self, output, progress, *rest):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Metrics, "log", log)
    with pytest.raises(KeyboardInterrupt):
        run("dim_colour_digits_cpu", tiny())


def test_a_run_is_never_overwritten(tiny):
    out = run("cmc_colour_digits_cpu", tiny("train.max_steps=1", "eval.every=0"))
    before = (out / "metrics.jsonl").read_text()
    with pytest.raises(UsageError, match="resume=true"):
        run("cmc_colour_digits_cpu", tiny("train.max_steps=1"))
    assert (out / "metrics.jsonl").read_text() == before


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tiny, monkeypatch):
    out = run("dim_colour_digits_cpu", tiny("train.max_steps=3", "eval.every=0"))
    good = load_file(out / "checkpoints" / "step-00000003" / "model.safetensors")
    with pytest.raises(UsageError, match=r"step-00000003 is the last good checkpoint") as caught:
        run("dim_colour_digits_cpu", tiny("train.learning_rate=1e30", "eval.every=0", "resume=true"))
    assert "\n" not in str(caught.value)
    kept = load_file(out / "checkpoints" / "step-00000003" / "model.safetensors")
    assert all(torch.equal(good[name], kept[name]) for name in good)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000003"]


def test_weights_that_diverged_between_two_log_lines_are_not_saved(tiny):
    settings = ("train.learning_rate=1e30", "train.warmup_steps=0", "train.log_every=1000", "eval.every=0")
    with pytest.raises(UsageError, match="no longer finite at step 3: nothing was saved yet"):
        run("dim_colour_digits_cpu", tiny(*settings))


def test_older_checkpoints_go_only_after_the_new_one(tiny):
    out = run("cmc_colour_digits_cpu", tiny("train.epochs=4", "eval.every=0", "train.keep_checkpoints=2"))
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000009", "step-00000012"]


def test_a_checkpoint_of_another_model_is_refused(tiny):
    run("dim_colour_digits_cpu", tiny("train.max_steps=1", "eval.every=0"))
    with pytest.raises(UsageError, match="another model"):
        run("dim_colour_digits_cpu", tiny("model.dot_units=8", "eval.every=0", "resume=true"))


def test_a_stream_trains(tiny):
    stream = [
        "data.streaming=true",
        "data.train_split=train",
        "data.eval_split=test",
        "train.max_steps=3",
        "eval.bank=64",
    ]
    out = run("dim_colour_digits_cpu", tiny(*stream))
    assert [record["step"] for record in read_history(out) if "loss" in record] == [1, 2, 3]
    with pytest.raises(UsageError, match=r"train\.max_steps"):
        run("dim_colour_digits_cpu", tiny("data.streaming=true", "data.train_split=train", out="endless"))


def test_gradient_accumulation_steps_once_for_several_batches(tiny):
    out = run("dim_colour_digits_cpu", tiny("train.gradient_accumulation=3", "eval.every=0"))
    assert [record["images"] for record in read_history(out)] == [96, 192]
    # the last step of an epoch takes what is left of it
    out = run("dim_colour_digits_cpu", tiny("train.gradient_accumulation=2", "eval.every=0", out="two"))
    assert [record["images"] for record in read_history(out)] == [64, 96, 160, 192]


def test_other_settings_of_the_loop(tiny):
    settings = [
        "train.optimizer=sgd",
        "train.schedule=step",
        "train.step_epochs=[1]",
        "train.warmup_steps=0",
        "train.clip_norm=1.0",
    ]
    out = run("dim_colour_digits_cpu", tiny(*settings, "train.trackers=[tensorboard]", "train.precision=bf16"))
    rates = [record["learning_rate"] for record in read_history(out) if "loss" in record]
    assert rates[-1] == pytest.approx(0.1 * 1e-3)
    assert list(out.rglob("events.out.tfevents*"))


def test_learning_rate_factor():
    cosine = TrainRecipe(schedule="cosine", warmup_steps=10)
    factors = [learning_rate_factor(cosine, step, 110, 10) for step in range(111)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert [factors[10], factors[60], factors[110]] == pytest.approx([1, 0.5, 0])
    steps = TrainRecipe(schedule="step", step_epochs=[2, 4], step_factor=0.1)
    assert [learning_rate_factor(steps, step, 60, 10) for step in (0, 19, 20, 40)] == pytest.approx([1, 1, 0.1, 0.01])
    plateau = TrainRecipe(schedule="plateau", warmup_steps=10, step_factor=0.1)
    dropped = [(4, 0), (10, 0), (20, 1), (30, 2)]
    factors = [learning_rate_factor(plateau, step, 60, 10, drops) for step, drops in dropped]
    assert factors == pytest.approx([0.5, 1, 0.1, 0.01])


PLATEAU = ("train.schedule=plateau", "train.learning_rate=1e-3", "train.warmup_steps=2")


def rates_and_losses(out):
    steps = [record for record in read_history(out) if "loss" in record]
    return [record["learning_rate"] for record in steps], [record["loss"] for record in steps]


def test_the_learning_rate_drops_where_the_last_layer_no_longer_improves(tiny, monkeypatch):
    rising = itertools.count()
    monkeypatch.setattr(Monitor, "knn", lambda *_: {"conv": next(rising), "y": 0.5})
    out = run("dim_colour_digits_cpu", tiny(*PLATEAU, "train.patience=1", "train.epochs=5"))
    rates, _ = rates_and_losses(out)  # two epochs until it has not improved, then a drop each, twice at most
    assert rates == pytest.approx([0.5e-3, *[1e-3] * 5, *[1e-4] * 3, *[1e-5] * 6])


def kill_at(monkeypatch, step):
    """End the run in the middle of a step; nothing is saved."""
    log = Metrics.log

    def log_or_die(self, output, progress, *rest):
        if progress.step == step:
            raise KeyboardInterrupt
        log(self, output, progress, *rest)

    monkeypatch.setattr(Metrics, "log", log_or_die)


@pytest.mark.parametrize(
    "ends",
    [
        [(interrupt_at, 8)],  # within an epoch
        [(interrupt_at, 6)],  # at an epoch's end, before its measurement
        [(interrupt_at, 3), (kill_at, 4)],  # so, and again after it: step 3 is measured twice
        [(kill_at, 11)],  # measured at step 9, saved at step 6
    ],
)
def test_a_resumed_run_drops_its_learning_rate_where_an_uninterrupted_one_does(ends, tiny, monkeypatch):
    monkeypatch.setattr(Monitor, "knn", lambda *_: {"y": 0.5})
    settings = (*PLATEAU, "train.patience=2", "train.epochs=4", "train.checkpoint_every=2")
    whole = rates_and_losses(run("dim_colour_digits_cpu", tiny(*settings, out="whole")))
    for end, step in ends:
        with monkeypatch.context() as patch:
            end(patch, step)
            with pytest.raises(KeyboardInterrupt):
                run("dim_colour_digits_cpu", tiny(*settings, "resume=true", out="parts"))
    parts = rates_and_losses(run("dim_colour_digits_cpu", tiny(*settings, "resume=true", out="parts")))
    assert whole == parts
    assert parts[0] == pytest.approx([0.5e-3, *[1e-3] * 8, *[1e-4] * 3])


@pytest.fixture
def corrupt_dataset(tmp_path):
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    for index in range(40):
        Image.effect_noise((32, 32), 50).convert("RGB").save(folder / f"{index:02d}.png")
    (folder / "07.png").write_bytes(b"no picture at all")
    return str(tmp_path / "images")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.backbone=resnet81"], "Unknown backbone 'resnet81'"),
        (["model.local_layer=conv9"], "Unknown local_layer 'conv9': choose one of conv1, conv2, conv"),
        (["model.bound=mine"], "Unknown bound 'mine'"),
        (["data.image_column=picture"], "picture"),
        (["data.label_column=class"], "class"),
        (["data.train_split=training"], "training"),
        (["data.dataset=./nowhere"], "nowhere"),
        (["train.batch_size=1"], "at least 2"),
        (["train.batch_size=5000"], "5000"),
        (["views.recipe=simclip"], "simclip"),
        (["model.num_negatives=32"], "num_negatives=32"),
        (["train.schedule=plateau", "eval.every=0"], "set eval.every=1"),
        (["train.schedule=plateau", "data.eval_split=null"], "set data.eval_split"),
        (["train.schedule=plateau", "train.patience=0"], "train.patience=0"),
    ],
)
def test_a_mistake_is_one_sentence_without_a_traceback(overrides, sentence, tiny, capsys):
    assert main(["dim_colour_digits_cpu", *tiny(*overrides)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]


def test_a_corrupt_image_stops_or_is_skipped(corrupt_dataset, tiny, capsys, caplog):
    data = [f"data.dataset={corrupt_dataset}", "data.train_split=train", "data.eval_split=null", "train.max_steps=1"]
    assert main(["dim_colour_digits_cpu", *tiny(*data)]) == 2
    assert "7" in capsys.readouterr().err
    assert main(["dim_colour_digits_cpu", *tiny(*data, "data.on_corrupt=skip", out="skipped")]) == 0
    assert "1 of 40 images could not be decoded and were skipped" in caplog.text


def test_a_learning_rate_that_goes_by_accuracies_needs_labels(corrupt_dataset, tiny, capsys):
    data = [f"data.dataset={corrupt_dataset}", "data.train_split=train", "data.on_corrupt=skip"]
    plateau = ["data.eval_split=train", "train.schedule=plateau"]
    assert main(["dim_colour_digits_cpu", *tiny(*data, *plateau)]) == 2
    assert "'train' has no column of classes: set data.label_column" in capsys.readouterr().err
