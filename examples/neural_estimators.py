"""MINE and NDM where the answer is known: correlated Gaussians, from next to no dependence to far more than either can find.

    python examples/neural_estimators.py [--steps 500] [--hidden 64] [--negatives 2] [--out model_cards/neural_estimators]

Sections 3.1 and A.5 of "Learning deep representations by mutual information estimation and maximization" (Hjelm et al., 2019).

MINE is asked about pairs of Gaussian vectors whose coordinates correlate one by one, I = -d/2 log(1 - rho^2): first with new
samples at every step, so that nothing can be memorised and what is missing is the network's and the optimizer's; then with a
finite set, of which a fifth is held out. The neural dependency measure is asked about Gaussian factors that all correlate alike,
whose total correlation is -1/2 log det R, for several data draws of ten networks each, as in Figure 12. All estimates are those
of held-out samples, and all networks are as `hf_infomax.evaluation.mine` and `ndm` train them.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor

from hf_infomax.evaluation.divergence import Batch, Estimate, maximise, run_generators
from hf_infomax.evaluation.mine import PairCritic, mine
from hf_infomax.evaluation.ndm import neural_dependency
from hf_infomax.evaluation.style import INK, PALETTE, house_figure, house_title

ROOT = Path(__file__).resolve().parent.parent
INFORMATION = (0.1, 0.5, 1, 2, 4, 6, 8, 10)  # nats
DIMENSIONS = (2, 20, 64)
FINITE, FINITE_DIMENSION = 10_000, 20  # samples, and the dimension that is asked about them
CORRELATIONS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)  # of the factors
FACTORS, FACTOR_SAMPLES, DRAWS, NETWORKS = 8, 5000, 5, 10
RUNS, BATCH, JUDGED = 5, 256, 5000


def pairs(samples: int, dimension: int, information: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x, y (samples, dimension), standard normal, of so many nats of mutual information."""
    x, noise = torch.randn(2, samples, dimension, generator=generator)
    rho = math.sqrt(1 - math.exp(-2 * information / dimension))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def factors(samples: int, correlation: float, generator: torch.Generator) -> Tensor:
    """(samples, FACTORS) standard normal, each two of which correlate by as much: a common part and one's own."""
    common, own = torch.randn(samples, 1, generator=generator), torch.randn(samples, FACTORS, generator=generator)
    return math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own


def total_correlation(correlation: float, count: int) -> float:
    """-1/2 log det R of so many Gaussian factors, in nats."""
    log_determinant = (count - 1) * math.log1p(-correlation) + math.log1p((count - 1) * correlation)
    return 0.0 - 0.5 * log_determinant  # from zero: independent factors have 0.0, and not -0.0


def endless(dimension: int, information: float, steps: int, hidden: int, negatives: int) -> Estimate:
    """MINE with new samples at every step."""
    generators, judge = run_generators(0, RUNS), torch.Generator().manual_seed(2**20)
    reported, validation, held_out = (pairs(JUDGED, dimension, information, judge) for _ in range(3))
    critic = PairCritic(*reported, hidden, negatives, generators)

    def stream(generator: torch.Generator) -> Iterator[Batch]:
        while True:
            yield pairs(BATCH, dimension, information, generator)

    options = {"steps": steps, "learning_rate": 2e-3, "moving_average": True, "progress": False, "label": "mine"}
    return maximise(critic, stream, generators, reported, validation, held_out, **options)


def entry(truth: float, estimate: Estimate, **where: object) -> dict:
    """What is saved of an estimate."""
    found = {
        "values": estimate.values,
        "mean": estimate.mean,
        "std": estimate.std,
        "training": fmean(estimate.training),
    }
    return {**where, "truth": truth, **found}


def measure_information(steps: int, hidden: int, negatives: int) -> list[dict]:
    """Every dimension and information with endless samples, and one dimension with finitely many."""
    rows = []
    for dimension in DIMENSIONS:
        for truth in INFORMATION:
            estimate = endless(dimension, truth, steps, hidden, negatives)
            rows.append(entry(truth, estimate, samples="endless", dimension=dimension))
            print(f"d={dimension}, I={truth}: {estimate.mean:.2f} ± {estimate.std:.2f}", flush=True)
    for truth in INFORMATION:
        sample = pairs(FINITE, FINITE_DIMENSION, truth, torch.Generator().manual_seed(0))
        options = {"steps": steps, "hidden": hidden, "negatives": negatives, "learning_rate": 2e-3}
        estimate = mine(*sample, runs=RUNS, batch_size=BATCH, progress=False, **options)
        rows.append(entry(truth, estimate, samples=FINITE, dimension=FINITE_DIMENSION))
        print(f"{FINITE} samples, I={truth}: {estimate.mean:.2f} ± {estimate.std:.2f}", flush=True)
    return rows


def measure_dependency(steps: int, hidden: int) -> list[dict]:
    """Every correlation: the means of NETWORKS estimators for each of DRAWS data sets, and their mean spread."""
    rows = []
    for correlation in CORRELATIONS:
        found = []
        for draw in range(DRAWS):
            y = factors(FACTOR_SAMPLES, correlation, torch.Generator().manual_seed(draw))
            options = {"steps": steps, "hidden": hidden, "learning_rate": 2e-3, "seed": draw * NETWORKS}
            found.append(neural_dependency(y, runs=NETWORKS, progress=False, **options))
        means = [estimate.mean for estimate in found]
        rows.append(
            {"correlation": correlation, "truth": total_correlation(correlation, FACTORS), "draws": means}
            | {"mean": fmean(means), "std": stdev(means), "std of networks": fmean(e.std for e in found)}
        )
        print(f"correlation {correlation}: {fmean(means):.3f} (truth {rows[-1]['truth']:.3f})", flush=True)
    return rows


def curves(rows: list[dict]) -> dict[str, list[dict]]:
    """Label -> its rows, in the order of INFORMATION."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        samples = "" if row["samples"] == "endless" else f", {row['samples']:,} samples"
        found.setdefault(f"d = {row['dimension']}{samples}", []).append(row)
    return found


def markdown(results: dict) -> str:
    """The tables, and how to read them."""
    lines = curves(results["information"])
    cells = {
        label: " | ".join(f"{row['mean']:.2f} ± {row['std']:.2f}" for row in rows) for label, rows in lines.items()
    }
    dependency = "\n".join(
        f"| {row['correlation']} | {row['truth']:.3f} | {row['mean']:.3f} ± {row['std']:.3f} | {row['std of networks']:.3f} |"
        for row in results["dependency"]
    )
    return f"""MINE on Gaussians of known mutual information, in nats: mean ± standard deviation of {RUNS} networks on held-out
samples. {results["steps"]} steps of {BATCH} pairs, {results["hidden"]} hidden units, {results["negatives"]} strangers for
each pair. Where nothing else is said, every step has new samples.

| truth | {" | ".join(f"{truth:g}" for truth in INFORMATION)} |
|:---|{"---:|" * len(INFORMATION)}
{chr(10).join(f"| {label} | {text} |" for label, text in cells.items())}

The neural dependency measure of {FACTORS} Gaussian factors that correlate alike, in nats, from {FACTOR_SAMPLES:,} samples:
mean ± standard deviation of {DRAWS} data draws, each the mean of {NETWORKS} networks, and the spread of these networks.

| correlation | total correlation | NDM | spread of networks |
|---:|---:|---:|---:|
{dependency}
"""


def plot(results: dict, path: Path) -> None:
    """Both estimates beside the truth; a bar is a standard deviation, over networks and over data draws."""
    with house_figure(path, height=4.2) as figure:
        left, right = figure.subplots(1, 2)
        for color, (label, rows) in zip(PALETTE, curves(results["information"]).items(), strict=False):
            values = [[row[key] for row in rows] for key in ("truth", "mean", "std")]
            dash = "--" if "samples" in label else "-"
            left.errorbar(
                values[0], values[1], values[2], fmt="o", linestyle=dash, ms=4, capsize=2.5, color=color, label=label
            )
        left.set(title="MINE", xlabel="mutual information (nats)", ylabel="estimate (nats)")
        rows = results["dependency"]
        truth, means, spread = ([row[key] for row in rows] for key in ("truth", "mean", "std"))
        right.errorbar(truth, means, spread, fmt="o-", ms=4, capsize=2.5, color=PALETTE[0], label=f"{FACTORS} factors")
        right.set(title="Neural dependency measure", xlabel="total correlation (nats)", ylabel="estimate (nats)")
        for axes, top in ((left, max(INFORMATION)), (right, max(truth))):
            axes.plot([0, top], [0, top], color=INK, linewidth=1.2, linestyle=":", label="truth")
            axes.legend()
        house_title(figure, "Neural estimators on Gaussians of known dependence")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--negatives", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "model_cards" / "neural_estimators")
    options = parser.parse_args(arguments)
    start = time.time()
    results = {"steps": options.steps, "hidden": options.hidden, "negatives": options.negatives}
    results["dependency"] = measure_dependency(options.steps, options.hidden)
    results["information"] = measure_information(options.steps, options.hidden, options.negatives)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (options.out / "table.md").write_text(markdown(results))
    plot(results, options.out / "figure.png")
    print(f"{markdown(results)}\nWritten to {options.out} in {time.time() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
