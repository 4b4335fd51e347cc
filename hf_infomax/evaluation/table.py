"""Tables: measured rows, saved so that nothing is lost, summarised over seeds and laid out for reading."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from hf_infomax.models.errors import UsageError

#: Metrics of which less is better; of every other one, more is.
LOWER_IS_BETTER = frozenset(
    {"alignment", "dead_units", "error", "loss", "mae", "mse", "nats of dependence", "rmse", "uniformity"}
)
#: Metrics kept as fractions and shown in percent.
PERCENT = frozenset({"accuracy", "dead_units", "error", "map", "mean_iou", "pixel_accuracy", "top1", "top5"})


@dataclass(frozen=True)
class Row:
    """One measured number: which probe read which target from which layer of which model, and how well."""

    model: str  #: the name to show, such as "DIM(L) InfoNCE"
    layer: str  #: such as "conv", or "pixels"
    probe: str  #: such as "knn" or "linear"
    target: str  #: what is read, such as "label" or "foreground"
    dataset: str
    split: str
    metric: str  #: such as "accuracy", kept as a fraction
    value: float
    std: float | None = None  #: over seeds, with n - 1; None for a single one
    seeds: tuple[int, ...] = (0,)

    @property
    def key(self) -> tuple[str, ...]:
        """What was measured: every field but the outcome."""
        return self.model, self.layer, self.probe, self.target, self.dataset, self.split, self.metric


class SavedResults(NamedTuple):
    """What a results.json holds."""

    run: dict[str, Any]
    rows: list[Row]


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Rows with equal keys, one for each seed -> one row with their mean, sample standard deviation and all seeds.

    Raises:
        UsageError: one seed appears twice for the same key.

    >>> a, b = (
    ...     Row("DIM", "conv", "knn", "label", "digits", "test", "accuracy", v, seeds=(s,))
    ...     for s, v in enumerate((0.6, 0.8))
    ... )
    >>> mean = summarise([a, b])[0]
    >>> round(mean.value, 3), round(mean.std, 3), mean.seeds
    (0.7, 0.141, (0, 1))
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    summary = []
    for group in groups.values():
        if len(group) == 1:
            summary.append(group[0])
            continue
        seeds = tuple(seed for row in group for seed in row.seeds)
        if len(set(seeds)) < len(seeds) or len(seeds) > len(group):
            raise UsageError(
                f"The rows of {' / '.join(group[0].key)} repeat a seed of {seeds}: give one row for each seed."
            )
        values = [row.value for row in group]
        summary.append(replace(group[0], value=fmean(values), std=stdev(values), seeds=seeds))
    return summary


def _row_from(entry: dict[str, Any], path: Path) -> Row:
    try:
        row = Row(**entry)
    except TypeError as error:
        raise UsageError(
            f"A row of {path} does not have the fields of a result ({error}): move the file away."
        ) from error
    return replace(row, value=math.nan if row.value is None else row.value, seeds=tuple(row.seeds))


def read_results(path: str | os.PathLike[str]) -> SavedResults:
    """The run and the rows of a results.json.

    Raises:
        UsageError: there is no such file, or it is not one of results.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"There are no results at {path}: run the evaluation first.") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not a file of results ({error}): move it away.") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise UsageError(f"{path} is not a file of results, which has a run and rows: move it away.")
    return SavedResults(content.get("run") or {}, [_row_from(entry, path) for entry in content["rows"]])


def write_results(path: str | os.PathLike[str], run: dict[str, Any], rows: Sequence[Row]) -> SavedResults:
    """Add rows to a results.json, or start one.

    A row replaces the saved one of the same key (all fields but value, std and seeds); every other saved row stays where it
    is, and so do entries of `run` that the new one does not name. The file changes at once or not at all, so that an
    interrupted run leaves what was there. One process writes: two at the same moment would not see each other's rows.

    Args:
        path: of the file; its folder is made.
        run: recipe, images seen, seconds, img/s, hardware, versions.
        rows: what was measured. NaN is saved as null.

    Returns:
        What the file now holds.

    Raises:
        UsageError: what is there already is not a file of results; it is left alone.
    """
    path = Path(path)
    saved = read_results(path) if path.exists() else SavedResults({}, [])
    merged = SavedResults(saved.run | run, list(({row.key: row for row in [*saved.rows, *rows]}).values()))
    entries = [asdict(row) | {"value": row.value if math.isfinite(row.value) else None} for row in merged.rows]
    text = json.dumps({"run": merged.run, "rows": entries}, indent=2, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(
        f".{path.name}.{os.getpid()}.partial"
    )  # beside the target: os.replace works within one file system
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return merged


@dataclass(frozen=True)
class Table:
    """Rows laid out: a line for each (model, layer), a column for each (probe, target), the best of every column."""

    lines: list[tuple[str, str]]  #: (model, layer)
    headings: list[tuple[str, ...]]  #: of each column: probe, target, what else tells it apart, and the metric
    cells: list[list[Row | None]]  #: [line][column]; None where nothing was measured
    best: set[tuple[int, int]] = field(default_factory=set)  #: (line, column)

    def text(self, line: int, column: int) -> str:
        """A cell as printed: a percentage with one decimal, or three decimals; "±" before the deviation over seeds."""
        row = self.cells[line][column]
        if row is None or not math.isfinite(row.value):
            return "-"
        show = (lambda value: f"{100 * value:.1f}") if row.metric in PERCENT else (lambda value: f"{value:.3f}")
        return show(row.value) if row.std is None else f"{show(row.value)} ± {show(row.std)}"

    def values(self) -> list[list[float]]:
        """The numbers as printed, percentages included, and NaN where nothing was measured."""
        scale = {True: 100.0, False: 1.0}
        return [[scale[row.metric in PERCENT] * row.value if row else math.nan for row in line] for line in self.cells]


def _headings(columns: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Columns (probe, target, dataset, split, metric) -> headings, which name dataset and split only where they differ."""
    varies = [len({column[index] for column in columns}) > 1 for index in (2, 3)]
    return [
        (
            column[0],
            column[1],
            *(column[index] for index, differs in zip((2, 3), varies, strict=True) if differs),
            f"{column[4]} (%)" if column[4] in PERCENT else column[4],
        )
        for column in columns
    ]


def tabulate(rows: Sequence[Row]) -> Table:
    """Rows -> a `Table`, lines and columns in the order in which they first appear; of rows with one key, the last.

    Of a column, all cells equal to its best are marked; a column with a single number has no best.
    """
    lines = list(dict.fromkeys((row.model, row.layer) for row in rows))
    columns = list(dict.fromkeys((row.probe, row.target, row.dataset, row.split, row.metric) for row in rows))
    found = {((row.model, row.layer), row.key[2:]): row for row in rows}
    table = Table(lines, _headings(columns), [[found.get((line, column)) for column in columns] for line in lines])
    for index, column in enumerate(columns):
        # Compared as printed: of two cells that read the same, a reader could not see why one is marked.
        values = {
            line: round(row.value, 3)
            for line, row in enumerate(cells[index] for cells in table.cells)
            if row is not None and math.isfinite(row.value)
        }
        if len(values) > 1:
            best = min(values.values()) if column[4] in LOWER_IS_BETTER else max(values.values())
            table.best.update((line, index) for line, value in values.items() if value == best)
    return table


def format_table(rows: Sequence[Row]) -> str:
    """Rows as aligned plain text for a terminal; the best of each column is followed by an asterisk.

    >>> rows = [
    ...     Row("DIM", layer, "knn", "label", "digits", "test", "accuracy", v)
    ...     for layer, v in (("conv", 0.913), ("y", 0.87))
    ... ]
    >>> print(format_table(rows))
    model  layer           knn
                         label
                  accuracy (%)
    ──────────────────────────
    DIM    conv          91.3*
           y             87.0
    """
    if not rows:
        return "(no results)"
    table = tabulate(rows)
    depth = max(len(heading) for heading in table.headings)
    columns = [["model", *[""] * (depth - 1)], ["layer", *[""] * (depth - 1)]]
    columns += [[*heading[:-1], *[""] * (depth - len(heading)), heading[-1]] for heading in table.headings]
    for line, (model, layer) in enumerate(table.lines):
        repeated = line > 0 and table.lines[line - 1][0] == model
        columns[0].append("" if repeated else model)
        columns[1].append(layer)
        for column in range(len(table.headings)):
            mark = "*" if (line, column) in table.best else " "  # a space keeps the decimal points in one line
            columns[column + 2].append(table.text(line, column) + mark)
    widths = [max(map(len, column)) for column in columns]
    printed = []
    for line in range(depth + len(table.lines)):
        cells = [
            column[line].ljust(width) if index < 2 else column[line].rjust(width)
            for index, (column, width) in enumerate(zip(columns, widths, strict=True))
        ]
        printed.append("  ".join(cells).rstrip())
    printed.insert(depth, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(printed)


def format_markdown(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table, for model cards; the best of each column is bold.

    >>> rows = [
    ...     Row("DIM", layer, "knn", "label", "digits", "test", "accuracy", v)
    ...     for layer, v in (("conv", 0.913), ("y", 0.87))
    ... ]
    >>> print(format_markdown(rows))
    | Model | Layer | knn, label, accuracy (%) |
    |:---|:---|---:|
    | DIM | conv | **91.3** |
    | DIM | y | 87.0 |
    """
    if not rows:
        return "(no results)"
    table = tabulate(rows)
    names = ["Model", "Layer", *(", ".join(heading) for heading in table.headings)]
    printed = [names]
    for line, pair in enumerate(table.lines):
        texts = [table.text(line, column) for column in range(len(table.headings))]
        marked = [f"**{text}**" if (line, column) in table.best else text for column, text in enumerate(texts)]
        printed.append([*pair, *marked])
    escaped = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in printed]
    return "\n".join([escaped[0], "|:---|:---|" + "---:|" * len(table.headings), *escaped[1:]])
