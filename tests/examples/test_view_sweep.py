import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

import strengths
import sweep_point
from strengths import STRENGTHS, slid_recipe, values_of
from tests.evaluation.looks import assert_is_a_picture

_spec = importlib.util.spec_from_file_location("view_sweep", Path(__file__).parents[2] / "examples" / "view_sweep.py")
view_sweep = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(view_sweep)

TINY = (
    "recipe=simclr_cifar10_cpu",
    "images=60",
    "model.backbone_kwargs={channels: [8, 12, 16], hidden_sizes: [24]}",
    "data.dataset=hf_infomax/colour_digits",
    "data.train_split=train[:100]",
    "data.eval_split=train[100:160]",
    "train.batch_size=32",
    "train.max_steps=2",
    "train.precision=fp32",
    "train.threads=1",
)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A sweep's command with the results in a temporary folder, where its runs are too."""
    monkeypatch.chdir(tmp_path)
    return lambda strength, *more: [strength, f"out={tmp_path / 'cards' / 'crops'}", *TINY, *more]


def entries(tmp_path):
    return [json.loads(line) for line in (tmp_path / "outputs/view_sweep/crops/points.jsonl").read_text().splitlines()]


def test_a_sweep_goes_on_where_it_stopped_and_publishes_all_of_it(asked, tmp_path, monkeypatch, capsys):
    trained = []
    train = sweep_point.train

    def count(recipe):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(recipe.views["crop"])
        return train(recipe)

    arguments = asked("crop", "values=1,0.2,0.6")
    with monkeypatch.context() as patch:
        patch.setattr(sweep_point, "train", count)
        assert view_sweep.main(arguments) == 130
    assert trained == [0.2]
    assert [entry["value"] for entry in entries(tmp_path)] == ["0.2"]
    monkeypatch.setattr(sweep_point, "train", lambda recipe: trained.append(recipe.views["crop"]) or train(recipe))
    assert view_sweep.main(arguments) == 0
    assert trained == [0.2, 0.6, 1]
    said = capsys.readouterr().out
    assert "1 of 3 points are finished already" in said
    assert "[3/3] c = 1, seed 0: " in said

    card = tmp_path / "cards" / "crops"
    results = json.loads((card / "results.json").read_text())
    assert list(dict.fromkeys(row["model"] for row in results["rows"])) == ["c = 0.2", "c = 0.6", "c = 1", "untrained"]
    nats = [row["value"] for row in results["rows"] if row["metric"] == "nats"]
    assert len(nats) == 3
    assert all(value <= math.log(60) for value in nats)
    assert {row["split"] for row in results["rows"]} == {"train[100:160]"}
    assert str(tmp_path) not in json.dumps(results)
    assert results["run"]["fit"]["verdict"] in (card / "table.md").read_text()
    assert_is_a_picture(card / "figure.png")

    assert view_sweep.main(arguments) == 0  # nothing is left to do
    assert len(trained) == 3


def test_other_values_and_seeds_are_added_and_other_settings_refused(asked, tmp_path, capsys):
    assert view_sweep.main(asked("crop", "values=0.5")) == 0
    assert view_sweep.main(asked("crop", "values=[0.5,0.9]", "seeds=0,1", "targets=foreground")) == 0
    assert [(entry["value"], entry["seed"]) for entry in entries(tmp_path)] == [
        ("0.5", 0),
        ("untrained", 0),
        ("0.9", 0),
        ("0.5", 1),
        ("0.9", 1),
    ]
    rows = json.loads((tmp_path / "cards" / "crops" / "results.json").read_text())["rows"]
    assert {tuple(row["seeds"]) for row in rows if row["target"] == "label" and row["model"] != "untrained"} == {(0, 1)}
    assert any(row["target"] == "foreground" for row in rows)
    capsys.readouterr()
    assert view_sweep.main(asked("crop", "values=0.5", "train.learning_rate=0.1")) == 2
    assert "was trained with train.learning_rate=0.001, and now it is 0.1" in capsys.readouterr().err
    assert view_sweep.main(asked("crop", "values=0.5", "images=50")) == 2
    assert "was measured with images=60: give the same" in capsys.readouterr().err


def test_several_points_at_a_time_are_written_and_read_by_processes_of_their_own(asked, tmp_path, monkeypatch, capsys):
    class Here:
        """Runs the jobs in this process."""

        def __init__(self, count):
            assert count == 2

        def finished(self, jobs):
            for job in reversed(jobs):
                python, script, file = job.command
                assert (python, Path(script).name) == (sys.executable, "sweep_point.py")
                assert sweep_point.main([file]) == 0
                yield job

    monkeypatch.setattr(view_sweep, "Workers", Here)
    assert view_sweep.main(asked("crop", "values=0.5,0.9", "workers=2")) == 0
    assert [entry["value"] for entry in entries(tmp_path)] == ["0.9", "0.5", "untrained"]
    assert "[1/2] c = 0.9, seed 0: " in capsys.readouterr().out


def test_two_encoders_are_asked_by_their_own_views(asked, tmp_path):
    arguments = [text for text in asked("colour", "values=ydbdr,lab") if not text.startswith("recipe=")]
    assert view_sweep.main(arguments) == 0
    found = {(row["model"], row["probe"]) for entry in entries(tmp_path) for row in entry["rows"]}
    assert {("ydbdr", "infonce"), ("lab", "linear"), ("untrained", "linear")} <= found


def test_a_line_that_was_cut_short_is_no_point(asked, tmp_path):
    sweep = view_sweep.read(asked("crop"))
    sweep.folder.mkdir(parents=True)
    whole = json.dumps({"value": "0.2", "seed": 0})
    (sweep.folder / "points.jsonl").write_text(f"{whole}\n{whole[:9]}")
    assert list(sweep.entries()) == [("0.2", 0)]
    sweep_point.note(sweep.points[0], {"value": "0.05", "seed": 0})
    assert list(sweep.entries()) == [("0.2", 0), ("0.05", 0)]


@pytest.mark.parametrize("strength", STRENGTHS)
def test_every_strength_has_recipes_that_say_it(strength):
    recipe = "cmc_cifar10_cpu" if strength == "colour" else "moco_v2_cifar10_cpu"
    values = values_of(strength, [])
    assert list(STRENGTHS[strength].values) == values
    loaded = [slid_recipe(strength, value, recipe, ["output_dir=out"]) for value in values]
    slid = [
        recipe.model["color_space"] if strength == "colour" else list(recipe.views.values())[-1] for recipe in loaded
    ]
    assert [str(value) for value in slid] == values
    views = sweep_point.view_options(loaded[-1])
    side = {"distance": 144}.get(strength, 32)
    images = sweep_point.torch.zeros(2, 3, side, side)
    shown = sweep_point.view_recipes.load(image_size=32, **views)(images)["pixel_values"]
    assert shown.shape == ((2, 3, 32, 32) if strength == "colour" else (2, 2, 3, 32, 32))


def test_the_user_has_the_last_word_and_the_digits_recipes_of_their_own():
    recipe = slid_recipe("frequency", "0.7", "simclr_cifar10_cpu", ["views.crop=0.5"])
    assert recipe.views == {"recipe": "frequency", "crop": 0.5, "sigma": 0.7}
    digits = ["train.epochs=1", "data.dataset=hf_infomax/colour_digits"]
    assert strengths.default_recipe(STRENGTHS["colour"], digits) == "cmc_colour_digits_cpu"
    assert strengths.default_recipe(STRENGTHS["colour"], digits[:1]) == "cmc_cifar10_cpu"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["crops"], "Unknown strength 'crops': choose one of crop, jitter"),
        (["crop", "values=0.1,much"], "values=0.1,much are not all numbers: write those of crop, such as values=0.05,"),
        (["crop", "values=0.5,2", *TINY], "the area of a crop is between 2 and 1"),
        (["colour", "values=lab,cmyk"], "Unknown colour space 'cmyk'"),
        (["crop", "seeds=one"], "'seeds"),
        (["crop", "output_dir=here"], "A sweep sets output_dir itself: give out=DIR."),
        (["crop", "images=1"], "A sweep needs a seed, two images and a worker at least"),
        (["crop", "epochs=3", *TINY], "Unknown key 'epochs'"),
        (["crop", *TINY, "data.eval_split=null"], "A sweep measures images that are held out"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(view_sweep, "CARDS", tmp_path)
    assert view_sweep.main(arguments) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert sentence in message


def test_the_help_lists_the_strengths_with_their_values(capsys):
    assert view_sweep.main(["--help"]) == 0
    said = capsys.readouterr().out
    for name, slide in STRENGTHS.items():
        assert f"    {name:<12}{slide.label}: {','.join(slide.values)}" in said
