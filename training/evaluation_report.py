"""The page of an evaluation: rows and figures -> one HTML file that says what was found, how it was measured, and how to go on.

Not in evaluate.py, which measures; the page can be written again from a results.json, see `hf_infomax.evaluation.read_results`.
"""

import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_infomax.evaluation.label_curves import is_few_labels
from hf_infomax.evaluation.label_free import HEALTH
from hf_infomax.evaluation.report import Code, Picture, ResultsTable, Section, Text, write_report
from hf_infomax.evaluation.series import RAW_PIXELS
from hf_infomax.evaluation.table import PERCENT, Row, tabulate
from hf_infomax.models.errors import choose


@dataclass(frozen=True)
class Kind:
    """A table of the page."""

    title: str
    caption: str


PROBES = Kind("What probes read from each layer", "Fitted on training images, asked on held-out ones.")
FEW_LABELS = Kind("With few labels", "The linear probe fitted on so many labelled images of each class.")
NEURAL = Kind(
    "Mutual information, dependence and reconstruction",
    "In nats, estimated by small networks that are trained for it; MS-SSIM is 1 for a perfect reconstruction.",
)
WITHOUT_LABELS = Kind("Without labels", "Properties of the features themselves; no label is used.")
#: Metrics of the tables beside the probes'.
KINDS = {"nats": NEURAL, "nats of dependence": NEURAL, "ms_ssim": NEURAL, "mse": NEURAL} | dict.fromkeys(
    HEALTH, WITHOUT_LABELS
)


@dataclass(frozen=True)
class Figure:
    """What stands with a figure of the page."""

    title: str
    caption: str
    alt: str


#: Names of the figures that a page can show, in their order.
FIGURES = {
    "layers": Figure(
        "Layer by layer",
        "From the input to the output; bars are one standard deviation over seeds.",
        "Line charts of what each probe reads at each layer, a line for each model; the numbers are in the table of probes.",
    ),
    "label_curves": Figure(
        "Few labels",
        "Bands are one standard deviation over draws of the labelled images.",
        "Line charts of accuracy against labels per class; the numbers are in the table of few labels.",
    ),
    "tradeoff": Figure(
        "Information and accuracy",
        "Each model's estimated mutual information with its input against what a probe reads from it.",
        "A scatter chart with a named dot for each model; the numbers are in the tables.",
    ),
    "ablation": Figure(
        "The weights of the objective",
        "As in Deep InfoMax, Figure 9: alpha weighs the global term, beta the local one, gamma prior matching.",
        "Heat maps over alpha and beta with the value at each point written in, the best ringed.",
    ),
    "projection": Figure(
        "Held-out images in two dimensions",
        "Each dot is an image. Distances between clusters and their sizes have no meaning.",
        "Scatter charts of projected features, coloured by class.",
    ),
    "neighbours": Figure(
        "Nearest neighbours",
        "As in Deep InfoMax, Figure 7: a held-out image of each class, and the nearest others by L1 in the last layer.",
        "Query images, each beside its nearest neighbours by every representation.",
    ),
    "loss_maps": Figure(
        "Where the representation does not know the image",
        "As in Deep InfoMax, Figure 13: the InfoNCE loss between the global vector and each location.",
        "Images beside heat maps of the loss.",
    ),
    "training": Figure(
        "Training", "The loss that was minimised, and the bound where there is one.", "Line charts over the training."
    ),
}
#: How each probe works, by the letters that its name begins with.
PROTOCOLS = {
    "knn": "kNN: the vote of the nearest training images, weighted by the cosine similarity of their features.",
    "linear": "Linear: logistic regression for classes, least squares for real-valued targets, on standardised features; its"
    " regularisation is chosen on held-out training images.",
    "svm": "SVM: a linear one-vs-rest machine with the hinge loss.",
    "sgd": "SGD: logistic regression by a paper's own schedule of stochastic gradient descent.",
    "mlp": "MLP: a network with one hidden layer of 200 units and dropout, averaged over the last epochs.",
    "fine": "Fine-tuned: the whole encoder trained with labels, a small network on top of the layer.",
    "decoder": "Decoder: images given back from frozen features by a network trained for the squared error.",
    "bound": "Bound in training: the mean over the last twentieth of the run's own record.",
    "mine": "MINE: the Donsker-Varadhan estimate of the mutual information with the input, on samples that its network did not"
    " see. It compares representations at equal settings, and is no property of one.",
    "ndm": "NDM: the dependence of the features on each other, as the divergence from independent ones. Less is more independent.",
    "infonce": "InfoNCE: a lower bound on the information that two views share; at most the logarithm of the images compared.",
}


def write_page(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    pictures: Mapping[str, str | os.PathLike[str]],
    settings: Mapping[str, Any],
    load: str,
    title: str = "What the representation knows",
    facts: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    baselines: Collection[str] = ("random init",),
) -> Path:
    """Write the page of an evaluation.

    Args:
        path: of the HTML file.
        rows: what was measured, summarised over seeds.
        pictures: name of a figure, one of `FIGURES`, -> its PNG.
        settings: of the evaluation, possibly nested; printed as dotted keys.
        load: code that loads the checkpoint.
        title: of the page.
        facts: small figures for the top of the page.
        warnings: sentences for a box above everything, such as "Layer y of DIM(G) has collapsed: ...".
        baselines: models that were not trained.

    Raises:
        UsageError: there is no figure of that name, or its file does not exist or is not a PNG.
    """
    for name in pictures:
        choose("figure of the page", name, FIGURES)
    sections = [*tables(rows)]
    for name, figure in FIGURES.items():
        if name in pictures:
            sections.append(Section(figure.title, [Picture(pictures[name], figure.caption, figure.alt)]))
    lines = "\n".join(f"{key}={value}" for key, value in dotted(settings))
    measured: list[Text | Code] = [Text(how_measured(rows))]
    if lines:
        measured.append(Code(lines, "The settings of this evaluation:"))
    sections += [Section("How it was measured", measured), Section("Load the checkpoint", [Code(load)])]
    return write_report(path, title, sections, summary(rows, baselines), dict(facts or {}), warnings)


def kind_of(row: Row) -> Kind:
    return FEW_LABELS if is_few_labels(row) else KINDS.get(row.metric, PROBES)


def tables(rows: Sequence[Row]) -> Iterator[Section]:
    """A section for each kind of rows that there are."""
    for kind in (PROBES, FEW_LABELS, NEURAL, WITHOUT_LABELS):
        if found := [row for row in rows if kind_of(row) == kind]:
            yield Section(kind.title, [ResultsTable(found, kind.caption)])


def printed(row: Row) -> str:
    """A row's value as the tables print it."""
    return tabulate([row]).text(0, 0) + (" %" if row.metric in PERCENT else "")


def summary(rows: Sequence[Row], baselines: Collection[str] = ("random init",)) -> str:
    """One or two sentences: the best model, layer and probe of the first target, beside an untrained encoder and raw pixels.

    Beside them by the same probe, and for the untrained encoder at the same layer. Empty where no class was asked for.
    """
    asked = [row for row in rows if row.metric == "accuracy" and kind_of(row) == PROBES and math.isfinite(row.value)]
    asked = [row for row in asked if question(row) == question(asked[0])]
    trained = [row for row in asked if row.model not in baselines and row.layer != RAW_PIXELS]
    if not trained:
        return ""
    best = max(trained, key=lambda row: row.value)
    same = [row for row in asked if row.probe == best.probe]
    beside = [
        f"{printed(row)} with {row.model}"
        for row in same
        if row.layer == RAW_PIXELS or (row.model in baselines and row.layer == best.layer)
    ]
    models = len({row.model for row in trained})
    among = f"Of {models} models, {best.model} knows most" if models > 1 else f"{best.model} knows most"
    found = (
        f"{among} of the {best.target} on {Path(best.dataset).name} ({best.split}) at layer {best.layer}: "
        f"{best.probe} reads it with an accuracy of {printed(best)}"
    )
    return f"{found}, beside {' and '.join(beside)}." if beside else f"{found}."


def question(row: Row) -> tuple[str, str, str]:
    """What is read, and on which images."""
    return row.target, row.dataset, row.split


def how_measured(rows: Sequence[Row]) -> str:
    """Paragraphs: the data, what the spreads are over, and each probe that the rows name."""
    splits = sorted({f"{Path(row.dataset).name} ({row.split})" for row in rows})
    paragraphs = [f"Asked on {', '.join(splits)}."] if splits else []
    spreads = sorted({len(row.seeds) for row in rows if row.std is not None})
    if spreads:
        paragraphs.append(
            f"± is one standard deviation over seeds, of which there are {' or '.join(map(str, spreads))}."
        )
    probes = dict.fromkeys(re.match(r"[a-z_]*", row.probe)[0] for row in rows)
    paragraphs += [PROTOCOLS[probe] for probe in probes if probe in PROTOCOLS]
    return "\n\n".join(paragraphs)


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as the command line spells them: ("data.dataset", "cifar10")."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
