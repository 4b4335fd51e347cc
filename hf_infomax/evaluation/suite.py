"""The suite: models and a dataset -> the rows of a table: layers x probes x targets, and the measures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_infomax.models.errors import UsageError, unknown_name
from hf_infomax.models.processes import world

from .feature_cache import cached_features
from .features import pixel_features
from .knn import knn_probe
from .labelled import LabelledImages
from .measures import MEASURES
from .mlp import mlp_probe
from .probes import ProbeResult, linear_probe, linear_regression_probes
from .schedules import scheduled_linear_probe
from .subject import Subject
from .svm import svm_probe
from .table import Row, summarise

#: Name -> how classes are read from frozen features. Real-valued targets are read by linear regression, under the name "linear".
PROBES: dict[str, Callable[..., ProbeResult]] = {
    "knn": knn_probe,
    "linear": linear_probe,
    "sgd": scheduled_linear_probe,
    "svm": svm_probe,
    "mlp": mlp_probe,
}
#: Those that are asked where nothing is said.
DEFAULT_PROBES = ("knn", "linear")
#: Those in which chance has no part: a second seed would give the same number.
SEEDLESS = frozenset({"knn"})
#: Those that fit nothing, so that all of the training images take part whatever `probe_images` says.
FITLESS = frozenset({"knn"})

#: What gives some rows when it is called.
Task = Callable[[], list[Row]]


def evaluate_features(
    train: Mapping[str, Tensor],
    test: Mapping[str, Tensor],
    train_targets: Mapping[str, Tensor],
    test_targets: Mapping[str, Tensor],
    model: str,
    dataset: str,
    split: str,
    probes: Sequence[str] = DEFAULT_PROBES,
    k: int = 20,
    seeds: Sequence[int] = (0,),
    probe_images: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Row]:
    """Ask every layer's features for every target by every probe that fits it.

    Classes are asked by the probes of `PROBES`, in accuracy; real-valued factors by linear regression, in R2. What a probe chooses,
    it chooses on held-out training features, never on the test split. Of several processes each asks a part of the questions, and
    all have the answers.

    Args:
        train, test: layer -> (N, F) and (M, F) features.
        train_targets, test_targets: name -> (N,) classes or (N, d) factors, and likewise of M rows.
        model, dataset, split: the names in the rows.
        probes: names of `PROBES`.
        k: voters of the kNN.
        seeds: of each probe; with several a row is their mean, with the deviation between them.
        probe_images: what is fitted, is fitted on that many first rows; the kNN, which fits nothing, has all vote.
        options: further arguments of a probe, by its name: {"mlp": {"epochs": 100}}.

    Returns:
        One `Row` for each (layer, probe, target).

    Raises:
        UsageError: there is no such probe, or a probe cannot be asked of these features.
    """
    subject = Subject(
        model, None, train, test, train_targets, test_targets, dataset, split, tuple(seeds), options or {}
    )
    return run_tasks(probe_tasks(subject, probes, k, probe_images), f"probes of {model}")


def probe_tasks(subject: Subject, probes: Sequence[str], k: int = 20, probe_images: int | None = None) -> list[Task]:
    """A task for each layer, probe and class, and one for each layer's factors; see `evaluate_features`."""
    for probe in probes:
        if probe not in PROBES:
            raise unknown_name("probe", probe, tuple(PROBES))
    classes = [name for name, values in subject.train_targets.items() if values.dim() == 1]
    tasks: list[Task] = []
    for layer in subject.train:
        for target in classes:
            tasks += [partial(read_classes, subject, layer, probe, target, k, probe_images) for probe in probes]
        if "linear" in probes and len(classes) < len(subject.train_targets):
            tasks.append(partial(read_factors, subject, layer, probe_images))
    return tasks


def read_classes(
    subject: Subject, layer: str, probe: str, target: str, k: int = 20, probe_images: int | None = None
) -> list[Row]:
    """What a probe reads of a class from a layer, one row over the seeds; a probe of a certain `k` has it in its name."""
    count = None if probe in FITLESS else probe_images
    train = subject.train[layer][:count], subject.train_targets[target][:count]
    splits = [x.to(subject.device) for x in (*train, subject.test[layer], subject.test_targets[target])]
    given = {"knn": {"k": k}}.get(probe, {}) | subject.given(probe)
    name = f"{probe}{given['k']}" if "k" in given else probe
    rows = []
    for seed in subject.seeds[:1] if probe in SEEDLESS else subject.seeds:
        found = PROBES[probe](*splits, seed=seed, **given)
        rows.append(subject.row(layer, name, target, found.metric, found.value, seeds=(seed,)))
    return summarise(rows)


def read_factors(subject: Subject, layer: str, probe_images: int | None = None) -> list[Row]:
    """What linear regression reads of all real-valued targets from a layer, one row each over the seeds."""
    factors = {name: values[:probe_images] for name, values in subject.train_targets.items() if values.dim() == 2}
    train, rows = subject.train[layer][:probe_images], []
    for seed in subject.seeds:
        found = linear_regression_probes(train, factors, subject.test[layer], subject.test_targets, seed=seed)
        rows += [
            subject.row(layer, "linear", target, result.metric, result.value, seeds=(seed,))
            for target, result in found.items()
        ]
    return summarise(rows)


def run_tasks(tasks: Sequence[Task], what: str) -> list[Row]:
    """The rows of all tasks, in their order; a collective call, in which each process works off every P-th task."""
    rank, processes = world()
    bar = tqdm(tasks[rank::processes], desc=what, unit="question", leave=False, disable=rank > 0)
    own = [task() for task in bar]
    if processes == 1:
        return [row for rows in own for row in rows]
    everyone: list[Any] = [None] * processes
    torch.distributed.all_gather_object(everyone, own)
    return [row for index in range(len(tasks)) for row in everyone[index % processes][index // processes]]


def evaluate_models(
    models: Mapping[str, nn.Module | None],
    train: LabelledImages,
    test: LabelledImages,
    dataset: str,
    split: str,
    layers: Sequence[str] | None = None,
    precision: str | None = None,
    probes: Sequence[str] = DEFAULT_PROBES,
    measures: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    cache: bool = False,
    **probing: Any,
) -> Iterator[Row]:
    """`evaluate_features` and the measures for several models on the same images; None stands for the raw pixels.

    A collective call where there are several processes: they share the images, and then the questions.

    Args:
        models: name -> what `extract_features` takes.
        train, test: the images on which probes are fitted, and those on which they are asked.
        dataset, split: the names in the rows.
        layers: of the models; None: all.
        precision: of the features.
        probes: names of `PROBES`.
        measures: names of `measures.MEASURES`, what is asked beside probes.
        seeds: as in `evaluate_features`; those of the measures too.
        options: further arguments of probes and measures, by their names.
        cache: keep the features on disk, see `cached_features`.
        probing: `k` and `probe_images` of `evaluate_features`.

    Yields:
        Rows, model by model.

    Raises:
        UsageError: no targets to ask for, no such probe or measure, or features that cannot be asked.

    >>> from hf_infomax.data import load_dataset  # doctest: +SKIP
    >>> train, test = (
    ...     labelled_images(load_dataset("hf_infomax/colour_digits", s), 32, ["label"]) for s in ("train", "test")
    ... )  # doctest: +SKIP
    >>> rows = list(
    ...     evaluate_models({"trained": model, "pixels": None}, train, test, "digits", "test")
    ... )  # doctest: +SKIP
    """
    if not train.targets and probes:
        raise UsageError("The dataset has no column to ask for: name one with targets=[...], such as targets=[label].")
    for measure in measures:
        if measure not in MEASURES:
            raise unknown_name("measure", measure, tuple(MEASURES))
    shared = world()[1] > 1
    device = next((next(model.parameters()).device for model in models.values() if model), torch.device("cpu"))
    for name, model in models.items():
        features = [
            pixel_features(images.pixels)
            if model is None
            else cached_features(model, images.pixels, layers, precision=precision, share=shared, cache=cache)
            for images in (train, test)
        ]
        pixels = train.pixels, test.pixels
        targets = train.targets, test.targets
        given = dataset, split, tuple(seeds), options or {}
        subject = Subject(name, model, *features, *targets, *given, *pixels, precision, device)
        yield from run_tasks(probe_tasks(subject, probes, **probing), f"probes of {name}")
        asked = [partial(_all_rows, MEASURES[measure], subject) for measure in measures]
        yield from run_tasks(asked, f"measures of {name}")


def _all_rows(measure: Callable[[Subject], Iterator[Row]], subject: Subject) -> list[Row]:
    return list(measure(subject))
