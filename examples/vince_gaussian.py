"""VINCE on the correlated Gaussian whose mutual information is known: Table 1, and the condition under which it is a bound.

    python examples/vince_gaussian.py [--seeds 5] [--epochs 100] [--out model_cards/vince_gaussian]

Section 4.1 and Table 1 of "On Mutual Information in Contrastive Learning for Visual Representations" (Wu et al., 2020). VINCE
draws InfoNCE's negatives from a part S of the data that lies close to the positive y1. Corollary 4.1.1 has it below InfoNCE where
every score f(y1, y) of S exceeds tau > log E_p[e^{f(y1, y)}]. Two kinds of critic are asked.

Trained critics follow B.1. Where it is silent: y has its own encoder (f = g(x) . h(y), ten outputs, not normalised),
representations are always of the current weights, distances are those of h, f(y1, y) is h(y1) . h(y), and the 100 negatives are
drawn with replacement from the nearest p per cent of the points, the positive left out. Fresh samples are ten times 2000 new
points, each time their own pool of negatives.

The optimal critic f* = log p(y|x) / p(y) is not trained, so nothing can be fitted to the points. Its S is the set of probability p
with the largest f*(y1, y), as the corollary writes, or with the largest f*(x, y), which is what the estimator scores.

What is seen. Around x, the optimal critic's VINCE lies below InfoNCE at every p, even where no anchor has the condition: to keep
the highest scores can only raise them, and the threshold matters for an S that is cut from above too. Around y1 the condition is
not enough: at 5 per cent and less every anchor has it, and VINCE exceeds InfoNCE and the mutual information. Theorem 4.1 speaks
of the mean of e^{f(y1, y)}, the estimator scores f(x, y), and y1 says little of x here. Trained critics rarely have the condition;
their VINCE is neither ordered nor a bound, lies above the same critic's InfoNCE, and Table 1's steady fall to 0 is not found.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_infomax.evaluation.style import FAINT, INK, PALETTE, house_figure, house_title
from hf_infomax.models.bounds import infonce

ROOT = Path(__file__).resolve().parent.parent
SIGMA_Z, SIGMA_EPS = torch.tensor([[[1, -0.5], [-0.5, 1]], [[1, 0.9], [0.9, 1]]], dtype=torch.float64)
COVARIANCE = SIGMA_Z + SIGMA_EPS
RHO = (COVARIANCE[0, 1] / (COVARIANCE[0, 0] * COVARIANCE[1, 1]).sqrt()).item()
SHARES = (1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05)  # of the points that may be negatives; 1 is InfoNCE
ALL_SHARES = (*SHARES, 0.02, 0.01)  # of the optimal critic, which needs no 2000 points to choose from
#: Table 1, in the order of SHARES: mean and standard deviation.
PAPER = (0.01345, 0.01241, 0.00220, 7.29e-5, 1.67e-5, 5.87e-6, 1.97e-6), (1e-3, 3e-4, 1e-4, 9e-6, 2e-6, 1e-6, 4e-6)
POINTS, POOLS, NEGATIVES, BATCH, WIDTH, LEARNING_RATE = 2000, 10, 100, 128, 10, 0.03
ANCHORS, NETS = 2**14, 16  # of the optimal critic: points of a Sobol net, and independent nets


def true_information(covariance: Tensor = COVARIANCE) -> float:
    """I(X; Y) of a bivariate Gaussian, in nats."""
    return -0.5 * torch.log(covariance.det() / covariance.diagonal().prod()).item()


def sample(seeds: int, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(X, Y) = Z + eps, each (seeds, points)."""
    root = torch.linalg.cholesky(COVARIANCE).float()
    x, y = (torch.randn(seeds, points, 2, generator=generator) @ root.T).unbind(-1)
    return x, y


# Trained critics: one replica for each share and seed, replica = share * seeds + seed, all computed at once.


class Encoders(nn.Module):
    """Independent five-layer MLPs of one number, initialised as nn.Linear is; the same for every share, one for each seed."""

    def __init__(self, seeds: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in in (1, WIDTH, WIDTH, WIDTH, WIDTH):
            drawn = torch.rand(seeds, fan_in + 1, WIDTH, generator=generator).mul(2).sub(1) / math.sqrt(fan_in)
            weight, bias = drawn.repeat(len(SHARES), 1, 1).split([fan_in, 1], dim=1)
            self.weights.append(weight.clone())  # (R, in, out)
            self.biases.append(bias.clone())  # (R, 1, out)

    def forward(self, numbers: Tensor) -> Tensor:
        hidden = numbers.unsqueeze(-1)  # (R, n, 1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden if layer == 0 else hidden.relu(), weight)
        return hidden  # (R, n, WIDTH)


def nearest(bank: Tensor, own: Tensor, share: float) -> Tensor:
    """The share of the bank (R, N, D) nearest in L2 to its rows `own` (R, B), these left out -> indices (R, B, k), unordered."""
    if share == 1:  # all others: no distance needs to be known
        others = torch.arange(bank.shape[1] - 1)
        return others + (others >= own.unsqueeze(-1))
    anchors = bank.gather(1, own.unsqueeze(-1).expand(-1, -1, bank.shape[-1]))
    # |a - b|^2 less |a|^2, which ranks alike; (R, B, N)
    distances = torch.baddbmm(bank.square().sum(-1).unsqueeze(1), anchors, bank.mT, alpha=-2)
    distances.scatter_(2, own.unsqueeze(-1), math.inf)
    count = min(round(share * bank.shape[1]), bank.shape[1] - 1)
    return distances.topk(count, largest=False, sorted=False).indices


def draw(chosen: Tensor, generator: torch.Generator) -> Tensor:
    """NEGATIVES of the chosen indices (R, B, k), with replacement -> (R, B, NEGATIVES)."""
    places = torch.randint(chosen.shape[-1], (*chosen.shape[:2], NEGATIVES), generator=generator)
    return chosen.gather(2, places)


def estimate(codes: Tensor, bank: Tensor, own: Tensor, negatives: Tensor) -> Tensor:
    """InfoNCE of each anchor: codes (R, B, D), the bank's (R, N, D) rows `own` (R, B) and negatives (R, B, K) -> (R, B)."""
    first = torch.arange(len(bank)).mul(bank.shape[1]).view(-1, 1, 1)  # where each replica's rows begin
    candidates = F.embedding(torch.cat([own.unsqueeze(-1), negatives], dim=2) + first, bank.flatten(0, 1))
    scores = (candidates * codes.unsqueeze(2)).sum(dim=-1)  # (R, B, 1 + K)
    return infonce(scores[..., 0], scores[..., 1:], reduction="none")


def train(x: Tensor, y: Tensor, epochs: int, generator: torch.Generator) -> tuple[Encoders, Encoders]:
    """B.1 for every share and seed: x, y (seeds, N)."""
    seeds = len(x)
    encoders = Encoders(seeds, generator), Encoders(seeds, generator)
    optimizer = torch.optim.Adam([p for encoder in encoders for p in encoder.parameters()], lr=LEARNING_RATE)
    x, y = x.repeat(len(SHARES), 1), y.repeat(len(SHARES), 1)
    for epoch in range(epochs):
        order = torch.rand(seeds, x.shape[1], generator=generator).argsort(dim=1).repeat(len(SHARES), 1)
        for own in order.split(BATCH, dim=1):
            bank = encoders[1](y)
            blocks = zip(SHARES, bank.detach().split(seeds), own.split(seeds), strict=True)
            negatives = torch.cat([draw(nearest(*block, share), generator) for share, *block in blocks])
            bounds = estimate(encoders[0](x.gather(1, own)), bank, own, negatives).mean(dim=1)  # (R,)
            optimizer.zero_grad()
            (-bounds.sum()).backward()  # no weight is shared: each replica has its own gradient
            optimizer.step()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}/{epochs}: " + " ".join(f"{b.mean():.4f}" for b in bounds.split(seeds)))
    return encoders


def above_mean(scores: Tensor, chosen: Tensor) -> Tensor:
    """The condition, for each anchor: tau, the least of its chosen scores, exceeds log E_p[e^score], all points' mean."""
    log_mean = scores.logsumexp(dim=-1) - math.log(scores.shape[-1])
    # A blind critic's tau and mean differ by rounding alone: hence a margin.
    return (scores.gather(2, chosen).amin(dim=-1) > log_mean + 1e-5).float()  # (R, B)


@torch.no_grad()
def measure(encoders: tuple[Encoders, Encoders], x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Each critic on x, y (seeds, N): the estimates, and the fraction of anchors with the condition; (shares, seeds)."""
    seeds, points = x.shape
    codes, banks = (e(v.repeat(len(SHARES), 1)) for e, v in zip(encoders, (x, y), strict=True))
    rows = []
    for share, code, bank in zip(SHARES, codes.split(seeds), banks.split(seeds), strict=True):
        parts = []
        for indices in torch.arange(points).split(500):  # scores of (seeds, 500, N) fit the memory
            own, some = indices.repeat(seeds, 1), code[:, indices]
            chosen, others = nearest(bank, own, share), nearest(bank, own, 1.0)
            estimates = [estimate(some, bank, own, draw(part, generator)) for part in (chosen, others)]
            conditions = [above_mean(anchors @ bank.mT, chosen) for anchors in (bank[:, indices], some)]
            parts.append(torch.stack([*estimates, *conditions]))
        rows.append(torch.cat(parts, dim=2).mean(dim=2))  # (4, seeds)
    names = ("VINCE", "InfoNCE, same critic", "condition, f(y1, ·)", "condition, f(x, ·)")
    return dict(zip(names, torch.stack(rows, dim=1), strict=True))


def measure_trained(seeds: int, epochs: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Train, and measure on the training points and on POOLS fresh samples: column -> (shares, seeds)."""
    x, y = sample(seeds, POINTS, generator)
    encoders = train(x, y, epochs, generator)
    known = measure(encoders, x, y, generator)
    pools = [measure(encoders, *sample(seeds, POINTS, generator), generator) for _ in range(POOLS)]
    fresh = {name: torch.stack([pool[name] for pool in pools]).mean(dim=0) for name in known}
    return {"training points": known["VINCE"], "fresh samples": fresh.pop("VINCE")} | fresh


# The optimal critic, in units of X's and Y's standard deviation, to which mutual information is blind.


def optimal_critic(x: Tensor, y: Tensor) -> Tensor:
    """f*(x, y) = log p(y|x) / p(y); so E_p(y)[e^f*(x, y)] = 1, and the condition is tau > 0."""
    return true_information() - (RHO**2 * (x**2 + y**2) - 2 * RHO * x * y) / (2 * (1 - RHO**2))


def level_set(centre: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """{y: f*(centre, y) >= tau} of probability `share`: an interval, f* being a parabola in y with its peak at centre / rho."""
    peak = centre / RHO
    low, high = torch.zeros_like(peak), peak.abs() + 10
    for _ in range(60):
        radius = (low + high) / 2
        enough = torch.special.ndtr(peak + radius) - torch.special.ndtr(peak - radius) >= share
        low, high = torch.where(enough, low, radius), torch.where(enough, radius, high)
    return peak - high, peak + high


def optimal(x: Tensor, y1: Tensor, centre: Tensor, share: float, uniform: Tensor) -> tuple[Tensor, ...]:
    """Each anchor's VINCE, VINCE of infinitely many negatives, condition, and Theorem 4.1's inequality for f*(x, y)."""
    lower, upper = level_set(centre, share)
    y = torch.special.ndtri(torch.special.ndtr(lower).unsqueeze(-1) + share * uniform)  # (anchors, K) of p(y | S)
    vince = infonce(optimal_critic(x, y1), optimal_critic(x.unsqueeze(-1), y), reduction="none")
    # e^f* p(y) = p(y|x), so E_q[e^f*(x, y)], to be above E_p's 1, is the probability of S given x over that without x.
    given_x = [torch.special.ndtr((edge - RHO * x) / math.sqrt(1 - RHO**2)) for edge in (upper, lower)]
    raised = (given_x[0] - given_x[1]) / share
    return vince, true_information() - raised.log(), optimal_critic(centre, lower) > 0, raised > 1


def measure_optimal(generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
    """`optimal` around x and around y1, the means of NETS nets of anchors: S -> column -> (shares, nets)."""
    nets = []
    for seed in torch.randint(2**31, (NETS,), generator=generator).tolist():
        # A net covers the two numbers of an anchor better than chance does, hence the small standard errors.
        net = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed).draw(ANCHORS, dtype=torch.float64)
        x, noise = torch.special.ndtri(net.clamp(1e-9, 1 - 1e-9)).unbind(-1)
        y1 = RHO * x + math.sqrt(1 - RHO**2) * noise
        uniform = torch.rand(ANCHORS, NEGATIVES, generator=generator, dtype=torch.float64)  # common to all sets
        for centre in (x, y1):
            rows = [[v.double().mean() for v in optimal(x, y1, centre, share, uniform)] for share in ALL_SHARES]
            nets.append(torch.tensor(rows))
    columns = {}
    for i, name in enumerate(("S around x", "S around y1")):
        vince, *others = torch.stack(nets[i::2], dim=-1).unbind(1)  # each (shares, nets)
        columns[name] = {"VINCE": vince, "InfoNCE less VINCE": vince[:1] - vince}  # of the same anchors: paired
        columns[name] |= dict(zip(("VINCE, K → ∞", "condition", "E_q > E_p"), others, strict=True))
    return columns


def summarise(columns: dict[str, Tensor], of_the_mean: bool) -> list[dict]:
    """A row for each share: column -> its mean over seeds or nets, its standard deviation (or that of the mean), all values."""
    rows = []
    for i, share in enumerate(ALL_SHARES[: len(next(iter(columns.values())))]):
        row = {"share": "InfoNCE" if share == 1 else f"{share:.0%}"}
        for name, values in columns.items():
            spread = values[i].std(correction=min(1, values.shape[1] - 1)).item()  # one seed spreads by 0
            spread /= math.sqrt(values.shape[1]) if of_the_mean else 1
            row[name] = {"mean": values[i].mean().item(), "std": spread, "values": values[i].tolist()}
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """A Markdown table, a line for each share."""
    columns = list(rows[0])[1:]
    lines = [f"| negatives | {' | '.join(columns)} |", "|:---" + "|---:" * len(columns) + "|"]
    for row in rows:
        cells = ["{mean:.4g} ± {std:.1g}".format(**row[column]) for column in columns]
        lines.append(f"| {row['share']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(results: dict) -> str:
    """The tables, and how to read them."""
    return f"""Mutual information: {results["truth"]:.5f} nats. Estimates are in nats, of K = {NEGATIVES} negatives.

Trained critics, mean ± standard deviation of {results["seeds"]} seeds after {results["epochs"]} epochs. All but the training
points' column is measured on fresh samples. Condition: the fraction of anchors all of whose candidates score above
log E_p[e^f], for f(y1, ·), which the corollary asks, and for f(x, ·), which the estimator uses.

{table(results["trained"])}

The optimal critic, mean ± standard error of {results["optimal_anchors"]:,} fresh anchors. S holds the share of p(y) with the
largest f(x, y). InfoNCE less VINCE is paired; it is not negative where VINCE bounds InfoNCE from below. E_q > E_p: the
fraction of anchors for which S raises E[e^f(x, y)], the inequality of Theorem 4.1 for the scores that the estimator uses.

{table(results["S around x"])}

The same with the largest f(y1, y), as the corollary writes.

{table(results["S around y1"])}
"""


def curves(results: dict) -> dict[str, list[tuple]]:
    """Panel -> its curves: label, rows, column, colour."""
    trained, around_x, around_y1 = results["trained"], results["S around x"], results["S around y1"]
    estimates = (("Table 1", 6), ("training points", 0), ("fresh samples", 1))
    conditions = (("condition, f(y1, ·)", 0), ("condition, f(x, ·)", 1))
    return {
        "Trained critics (logarithmic beyond 0.03)": [(name, trained, name, color) for name, color in estimates],
        "Optimal critic, S around x": [("VINCE", around_x, "VINCE", 2)],
        "Optimal critic, S around y1": [("VINCE", around_y1, "VINCE", 3)],
        "Where the condition holds": [
            *((name.replace("condition", "trained critics"), trained, name, color) for name, color in conditions),
            ("optimal critic, either S", around_y1, "condition", 4),
        ],
    }


def plot(results: dict, path: Path) -> None:
    """The estimates of trained and of optimal critics, and how often the condition holds; a dot is a seed, or a net."""
    everywhere = [i for i, row in enumerate(results["S around y1"]) if row["condition"]["mean"] == 1]
    with house_figure(path, height=7.4) as figure:
        for axes, (title, drawn) in zip(figure.subplots(2, 2).flat, curves(results).items(), strict=True):
            fractions = title == "Where the condition holds"
            for shift, (label, rows, column, color) in enumerate(drawn):
                places, style = [i + 0.08 * shift for i in range(len(rows))], {"color": PALETTE[color]}
                axes.plot(places, [row[column]["mean"] for row in rows], "o-", markersize=4.5, label=label, **style)
                for place, row in zip(places, rows, strict=True):
                    values = row[column].get("values", [])
                    axes.plot([place] * len(values), values, "o", markersize=3.5, alpha=0.4, markeredgewidth=0, **style)
            if title.startswith("Trained"):
                axes.set_yscale("symlog", linthresh=0.03, linscale=1.5)  # some fail by far on fresh samples
                ticks = (-1, -0.1, -0.03, 0, 0.03, 0.1, 0.3)
                axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            if not fractions:
                axes.axhline(results["truth"], color=INK, linewidth=1.2, linestyle="--", label="mutual information")
            if "Optimal" in title and everywhere:
                span = everywhere[0] - 0.3, everywhere[-1] + 0.3
                axes.axvspan(*span, color=FAINT, alpha=0.6, linewidth=0, label="condition holds for all")
            axes.set_xticks(range(len(rows)), ["100%", *(row["share"] for row in rows[1:])])
            axes.set(title=title, xlabel="share that may be negatives (100%: InfoNCE)")
            axes.set_ylabel("fraction of anchors" if fractions else "estimate (nats)")
            axes.legend()
        house_title(figure, "VINCE on a Gaussian of known mutual information")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT / "model_cards" / "vince_gaussian")
    options = parser.parse_args(arguments)
    start, generator = time.time(), torch.Generator().manual_seed(0)
    print(f"Mutual information: {true_information():.7f} nats")
    optimals = {name: summarise(columns, of_the_mean=True) for name, columns in measure_optimal(generator).items()}
    trained = summarise(measure_trained(options.seeds, options.epochs, generator), of_the_mean=False)
    paper = [
        {"share": row["share"], "Table 1": {"mean": m, "std": s}} for row, m, s in zip(trained, *PAPER, strict=True)
    ]
    results = {"truth": true_information(), "seeds": options.seeds, "epochs": options.epochs}
    results |= {"optimal_anchors": ANCHORS * NETS, "trained": [p | row for p, row in zip(paper, trained, strict=True)]}
    results |= optimals
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (options.out / "table.md").write_text(markdown(results))
    plot(results, options.out / "vince.png")
    print(f"{markdown(results)}\nWritten to {options.out} in {time.time() - start:.0f} s")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # the matrices are tiny, and one thread adds up in one order
    sys.exit(main(sys.argv[1:]))
