"""The sweet spot of a strength: train at several values of it, and plot what the views share against what is learned.

    python examples/view_sweep.py STRENGTH [key=value ...]
    python examples/view_sweep.py crop data.dataset=path/to/cifar10 data.train_split=train[:90%] data.eval_split=train[90%:]
    python examples/view_sweep.py jitter data.dataset=hf_infomax/colour_digits values=0,0.5,1,2 seeds=0,1

Views that share too much let an encoder tell images apart by what does not matter, views that share too little leave it nothing to
learn from: accuracy over I_NCE is a reverse-U (Tian et al. 2020, What makes for good views, Figures 2, 5 and 6). This asks whether
it is one for some data, and names the value to take. Its keys, beside every key of the training recipe:

    values=a,b,c    of the strength; without it, those of the list below
    seeds=0,1       of every value; without it, 0
    recipe=NAME     that is trained by; without it, one for two CPU cores that fits the dataset and the strength
    images=4096     of the held-out split, at most, among which I_NCE is measured; the ceiling is its logarithm
    targets=[a,b]   columns to ask for beside the classes, such as [foreground,background] of the colour digits
    workers=N       points at a time; without it, one on each GPU, or one
    out=DIR         of the results; without it, model_cards/view_sweep/STRENGTH_DATASET

Every point is an ordinary run of training/pretrain.py under outputs/view_sweep. Ctrl-C leaves what is finished, and the same
command goes on where it stopped; with other values it adds them. The accuracy is that on data.eval_split, which recipes hold out
of the training images. Writes DIR/results.json, table.md and figure.png.

"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "training"))  # the scripts are neighbours, not a package

import process  # noqa: E402, F401 (before torch)

# isort: split
import json  # noqa: E402
import math  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import dataclass, field, fields  # noqa: E402
from typing import Any  # noqa: E402

import command  # noqa: E402
from hf_infomax import UsageError  # noqa: E402
from hf_infomax.evaluation import (  # noqa: E402
    ReverseU,
    Row,
    SweepPoint,
    fit_reverse_u,
    format_markdown,
    format_table,
    plot_sweet_spot,
    summarise,
    write_results,
)
from recipe import read_settings  # noqa: E402
from strengths import STRENGTHS, Slide, default_recipe, values_of  # noqa: E402
from sweep_point import Point, finish, note, require_same, untrained_rows  # noqa: E402
from workers import Job, Workers, devices, share_of_cores  # noqa: E402

CARDS = ROOT / "model_cards" / "view_sweep"
UNTRAINED = "untrained"
#: Keys of the recipe that a sweep sets -> how to say what is meant.
TAKEN = {"output_dir": "out=DIR", "train.seed": "seeds=0,1", "resume": "nothing, for a sweep always goes on"}


@dataclass
class Settings:
    """The sweep's own keys; see the text above."""

    values: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    recipe: str | None = None
    images: int = 4096
    targets: list[str] = field(default_factory=list)
    workers: int | None = None
    out: str | None = None


@dataclass
class Sweep:
    """What is asked, and where it is kept."""

    strength: str
    points: list[Point]  # seed by seed: a sweep cut short has something of every value
    out: Path  # of the results
    workers: int

    @property
    def slide(self) -> Slide:
        return STRENGTHS[self.strength]

    @property
    def folder(self) -> Path:
        return Path(self.points[0].folder)

    def entries(self) -> dict[tuple[str, int], dict[str, Any]]:
        """(value, seed) -> what was measured, of all points that ever were under this name; a line cut short is none."""
        path, found = self.folder / "points.jsonl", {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[entry["value"], entry["seed"]] = entry
        return found


def read(arguments: list[str]) -> Sweep:
    """The command line -> a sweep.

    Raises:
        UsageError: a strength, a key or a value that cannot be.
    """
    strength, own, overrides = arguments[0], [], []
    names = {each.name for each in fields(Settings)}
    for argument in arguments[1:]:
        key, _, value = argument.partition("=")
        if key in TAKEN:
            raise UsageError(f"A sweep sets {key} itself: give {TAKEN[key]}.")
        listed = key in ("values", "seeds", "targets") and not value.startswith("[")
        (own if key in names else overrides).append(f"{key}=[{value}]" if listed else argument)
    settings = read_settings(Settings, {}, own)
    values = values_of(strength, settings.values)
    if not settings.seeds or settings.images < 2 or (settings.workers or 1) < 1:
        raise UsageError("A sweep needs a seed, two images and a worker at least: leave these keys out for its own.")
    workers = settings.workers or max(1, len(devices()))
    overrides.insert(0, "eval.every=0")  # every point is measured at its end, and better
    if workers > 1 and not devices():
        overrides.insert(0, f"train.threads={share_of_cores(workers)}")
    recipe = settings.recipe or default_recipe(STRENGTHS[strength], overrides)
    first = Point(strength, values[0], settings.seeds[0], recipe, "", overrides)
    out = Path(settings.out or CARDS / f"{strength}_{Path(first.load().data.dataset).name}")
    common = {
        "recipe": recipe,
        "folder": str(Path("outputs") / "view_sweep" / out.name),
        "overrides": overrides,
        "images": settings.images,
        "targets": settings.targets,
    }
    points = [Point(strength, value, seed, **common) for seed in dict.fromkeys(settings.seeds) for value in values]
    return Sweep(strength, points, out, workers)


def run(sweep: Sweep) -> None:
    """Finish every point, one line for each, and measure one encoder before training."""
    entries = sweep.entries()
    for point in sweep.points:  # what is wrong with the last one is said before the first one is trained
        point.views()
        require_same(point)
    for entry in entries.values():
        if entry.get("images", sweep.points[0].images) != sweep.points[0].images:
            raise UsageError(
                f"'{sweep.folder}' was measured with images={entry['images']}: give the same, or another out=DIR."
            )
    pending = [point for point in sweep.points if (point.value, point.seed) not in entries]
    done = len(sweep.points) - len(pending)
    if done:
        print(f"{done} of {len(sweep.points)} points are finished already", flush=True)
    for point in finished(pending, sweep.workers):
        done += 1
        print(f"[{done}/{len(sweep.points)}] {said(point, sweep.entries()[point.value, point.seed])}", flush=True)
    first = sweep.points[0]
    if not any(value == UNTRAINED for value, _ in entries):
        note(first, {"value": UNTRAINED, "seed": first.seed, "rows": [vars(row) for row in untrained_rows(first)]})


def finished(points: list[Point], workers: int) -> Iterator[Point]:
    """The points, each as it is done: one after the other here, or several at a time in processes of their own."""
    if workers == 1:
        for point in points:
            print(f"--- {point.name}, seed {point.seed}", flush=True)
            finish(point)
            yield point
        return
    script = str(ROOT / "training" / "sweep_point.py")
    jobs = {
        f"{point.name}, seed {point.seed}": (point, [sys.executable, script, str(point.write())]) for point in points
    }
    started = [Job(name, line, point.out / "log.txt") for name, (point, line) in jobs.items()]
    for job in Workers(workers).finished(started):
        yield jobs[job.name][0]


def said(point: Point, entry: dict[str, Any]) -> str:
    """A point in one line."""
    found = {row["probe"]: row["value"] for row in reversed(entry["rows"])}  # the first target's
    known = ", ".join(f"{probe} {100 * value:.1f}%" for probe, value in found.items() if probe != "infonce")
    return (
        f"{point.name}, seed {point.seed}: {found['infonce']:.2f} nats, {known} "
        f"({entry['seconds']['training']:.0f} s + {entry['seconds']['measuring']:.0f} s)"
    )


def swept(sweep: Sweep, entries: list[dict[str, Any]], rows: list[Row]) -> list[SweepPoint]:
    """The points of the figure, in order of the strength, from rows that are summarised over seeds."""
    target = next(row.target for row in rows if row.probe == "linear")
    held_out = entries[0]["held_out"]
    points = []
    for value in values_of(sweep.strength, [entry["value"] for entry in entries]):
        name = sweep.slide.named(value)
        nats, known = (
            next(row for row in rows if (row.model, row.probe, row.target) == (name, *wanted))
            for wanted in (("infonce", "the other view"), ("linear", target))
        )
        chance = math.sqrt(known.value * (1 - known.value) / held_out)  # the standard error of a share of images
        spread = chance if known.std is None else known.std
        points.append(SweepPoint(value, nats.value, known.value, nats.std or 0.0, spread))
    return points


def verdict(sweep: Sweep, points: list[SweepPoint], fit: ReverseU) -> str:
    """What was found, in one sentence or two."""
    best = points[fit.best]
    named = f"{sweep.slide.named(best.name)} ({100 * best.accuracy:.1f}% at {best.information:.2f} nats)"
    if fit.seen:
        return f"A reverse-U: the sweet spot is {named}; the parabola is highest at {fit.peak:.2f} nats."
    ends = {"low": ("strongest", "weakest"), "high": ("weakest", "strongest")}.get(
        sweep.slide.stronger, ("lowest", "highest")
    )
    end = {0: f", the {ends[0]} measured", len(points) - 1: f", the {ends[1]} measured"}.get(fit.best, "")
    return f"No reverse-U was seen: {fit.why_not}. The best is {named}{end if sweep.slide.numeric else ''}."


def publish(sweep: Sweep) -> None:
    """Write the results, the table and the figure of all points under the sweep's name, and print them."""
    every = sweep.entries()
    entries = [entry for (value, _), entry in every.items() if value != UNTRAINED]
    order = values_of(sweep.strength, [entry["value"] for entry in entries])
    entries.sort(key=lambda entry: (order.index(entry["value"]), entry["seed"]))
    floor = [entry for (value, _), entry in every.items() if value == UNTRAINED][:1]
    rows = summarise(
        [Row(**row | {"seeds": tuple(row["seeds"])}) for entry in [*entries, *floor] for row in entry["rows"]]
    )
    points = swept(sweep, entries, rows)
    fit = fit_reverse_u(*zip(*((p.information, p.accuracy, p.accuracy_spread) for p in points), strict=True))
    answer, target = verdict(sweep, points, fit), next(row.target for row in rows if row.probe == "linear")
    run = {
        "sweep": {
            "strength": sweep.strength,
            "recipe": sweep.points[0].recipe,
            # The dataset's name, not its place on this machine.
            "overrides": [text for text in sweep.points[0].overrides if not text.startswith("data.dataset=")],
        },
        "held_out_images": entries[0]["held_out"],
        "seconds": {f"{entry['value']}, seed {entry['seed']}": entry["seconds"] for entry in entries},
        "fit": {
            "coefficients": fit.coefficients if fit.seen else None,
            "peak_nats": fit.peak,
            "best": points[fit.best].name,
        }
        | {"seen": fit.seen, "verdict": answer},
    }
    write_results(sweep.out / "results.json", run, rows)
    (sweep.out / "table.md").write_text(f"{format_markdown(rows)}\n\n{answer}\n", encoding="utf-8")
    untrained = [row.value for row in rows if (row.model, row.probe, row.target) == (UNTRAINED, "linear", target)]
    draw(sweep, points, fit, f"{target} (%)", entries[0]["held_out"], untrained[0] if untrained else None)
    print(f"\n{format_table(rows)}\n\n{answer}\nsaved in {sweep.out}")


def draw(
    sweep: Sweep, points: list[SweepPoint], fit: ReverseU, target: str, held_out: int, untrained: float | None
) -> None:
    """The figure: its title says what was found, and its axes among how many images."""
    slide, best, among = sweep.slide, points[fit.best].name, min(sweep.points[0].images, held_out)
    plot_sweet_spot(
        points,
        fit,
        sweep.out / "figure.png",
        slide.symbol,
        xlabel=f"I_NCE between two views, among {among:,} held-out images (nats, at most {math.log(among):.1f})\n"
        + legend(slide, points),
        ylabel=f"linear accuracy, {target}",
        title=f"{slide.title}: {'the sweet spot' if fit.seen else 'no reverse-U; the best'} is {slide.named(best)}",
        untrained=untrained,
        ordered=slide.numeric,
    )


def legend(slide: Slide, points: list[SweepPoint]) -> str:
    """What the dots' names are."""
    if not slide.numeric:
        return slide.label
    low, high = (", strongest" if slide.stronger == end else "" for end in ("low", "high"))
    return f"dots: {slide.label}, from {points[0].name} (pale{low}) to {points[-1].name} (dark{high})"


def view_sweep(arguments: list[str]) -> None:
    """Read, run, publish."""
    asked = read(arguments)
    run(asked)
    publish(asked)


def help_text() -> str:
    """The text above, and the strengths with their values."""
    lines = [f"    {name:<12}{slide.label}: {','.join(slide.values)}" for name, slide in STRENGTHS.items()]
    return (__doc__ or "") + "\n".join(["STRENGTH is one of", "", *lines, ""])


def main(arguments: list[str]) -> int:
    """The command; see `command.run` for its exit status."""
    return command.run(view_sweep, help_text(), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
