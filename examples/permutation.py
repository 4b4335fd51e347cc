"""Theorem 2.1, measured: only views that collide tell instance discrimination which data belong together.

    python examples/permutation.py [--out model_cards/permutation] [--seeds 5] [--steps 600]

"On Mutual Information in Contrastive Learning" (Wu et al. 2020), Theorem 2.1 and its proof A.5: without an inductive bias, an
optimal encoder of instance discrimination stays optimal when the data are permuted, if and only if the view sets of different
data are disjoint. Here the encoder is a lookup table, one free unit vector for each view, and the loss is exact: no sampling.

The inputs are the cells of a ring. Datum i owns `own` cells; its view set is the `reach` cells from its first on, each as likely:

    reach <= own   disjoint: a view tells its datum          reach > own    neighbours on the ring share views

The permuted encoder of the theorem maps (x_pi(i), a) to g(x_i, a). As a function of the pair that leaves the loss alone always,
collisions or not: it only renames the data. The theorem is about encoders that see the view and not the pair, and there the
formula says nothing where two data share a view. Here a datum's own cells travel with it, which is the theorem's encoder where
sets are disjoint.

What is measured (figure.png, results.json):

- disjoint: the loss is unchanged by every permutation, to rounding, and a datum's neighbour has its label by chance alone;
- colliding: a random permutation raises the loss, and neighbours have the same label, if labels follow what collides. Labels that
  do not (every fourth datum) are not learned, but avoided: the theorem promises a bias, not a good one;
- "only if" does not hold as printed. A permutation that maps the collisions onto themselves, such as a rotation of the ring,
  changes nothing. On a ring of seven, all 5,040 permutations are tried: with collisions 14 of them (rotations and reflections)
  leave the loss alone; but where all pairs of data collide alike (six of seven cells in each set, or all seven), all 5,040 do.

So the condition is one on the joint distribution of two views of one datum, p(v, v'): permutations that leave it alone, and for
the optima found here only these, leave the loss alone. Disjoint sets are one of the cases where all do.
"""

import argparse
import itertools
import json
import math
import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn import functional as F

from hf_infomax.evaluation.style import MUTED, PALETTE, house_figure

TEMPERATURE = 0.07
SIZE = 8  # of the vectors: enough for a random start to be sorted, which a circle is too narrow for
ITEMS, OWN = 48, 2
REACHES = (1, 2, 3, 4, 6, 8, 16, 32, 64, ITEMS * OWN)
DISJOINT, COLLIDING = 2, 8  # the two that are shown at length
RING = 7  # so small that all permutations can be tried
UNCHANGED = 1e-9  # nats; the arithmetic is float64
#: Name -> labels (ITEMS,): four arcs of the ring, and the same number of each label far from its like.
LABELS = {"arc of the ring": torch.arange(ITEMS) * 4 // ITEMS, "every fourth": torch.arange(ITEMS) % 4}


def view_sets(items: int, own: int, reach: int) -> Tensor:
    """p(view | datum), (items, items * own): the same probability for the `reach` cells from the datum's first on."""
    cells = torch.arange(items)[:, None] * own + torch.arange(reach)  # (items, reach)
    return F.one_hot(cells % (items * own), items * own).sum(dim=1).double() / reach


def infonce_loss(table: Tensor, views: Tensor) -> Tensor:
    r"""Minus InfoNCE in expectation, the limit of `bounds.infonce` for ever more negatives, in nats.

    .. math:: -E_{p(v, v')}[s(v, v')] + E_{p(v)} \log E_{p(v')} e^{s(v, v')}

    Args:
        table: (..., C, D), a vector of any length for each view; s is their cosine over the temperature.
        views: (N, C), p(v | datum), all data equally likely.

    Returns:
        (...,)
    """
    joint, marginal = views.T @ views / len(views), views.mean(dim=0)  # (C, C), (C,)
    vectors = F.normalize(table, dim=-1)
    scores = vectors @ vectors.mT / TEMPERATURE  # (..., C, C)
    log_mean = (scores + marginal.log()).logsumexp(dim=-1)  # (..., C); a view that no datum has weighs nothing
    return (marginal * log_mean).sum(dim=-1) - (joint * scores).sum(dim=(-2, -1))


def view_information(views: Tensor) -> float:
    """I(V; V') of two views of one datum in nats, which minus the loss cannot exceed."""
    joint, marginal = views.T @ views / len(views), views.mean(dim=0)
    return (torch.xlogy(joint, joint) - torch.xlogy(joint, marginal.outer(marginal))).sum().item()


def train_tables(views: Tensor, seeds: int, steps: int) -> Tensor:
    """(seeds, C, D) free unit vectors that minimise the loss, each from its own random start."""
    starts = [torch.randn(views.shape[1], SIZE, generator=torch.Generator().manual_seed(seed)) for seed in range(seeds)]
    tables = torch.stack(starts).double().requires_grad_()
    optimizer = torch.optim.Adam([tables], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        infonce_loss(tables, views).sum().backward()  # seeds do not mix: each has its own gradient
        optimizer.step()
        schedule.step()
    return F.normalize(tables.detach(), dim=-1)


def permuted(table: Tensor, permutation: Tensor) -> Tensor:
    """The encoder that says of datum pi(i)'s own cells what `table` says of datum i's: (C, D) and (..., N) -> (..., C, D)."""
    cells = table.unflatten(0, (permutation.shape[-1], -1))  # (N, own, D)
    return cells[permutation.argsort(dim=-1)].flatten(-3, -2)


def rises(table: Tensor, views: Tensor, permutations: Tensor) -> Tensor:
    """By how many nats each permutation (P, N) of the table raises the loss, (P,)."""
    before = infonce_loss(table, views)
    return torch.cat([infonce_loss(permuted(table, some), views) - before for some in permutations.split(256)])


def random_permutations(items: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(items, generator=generator) for _ in range(count)])


def rotations(items: int) -> Tensor:
    """All of them but the one that does nothing, (items - 1, items)."""
    return (torch.arange(items) + torch.arange(1, items)[:, None]) % items


def neighbour_accuracy(vectors: Tensor, labels: Tensor) -> float:
    """How often the nearest other vector has the same label: the paper's measure."""
    nearest = (vectors @ vectors.T).fill_diagonal_(-math.inf).argmax(dim=1)
    return (labels[nearest] == labels).double().mean().item()


def measure_ring(reach: int, seeds: int, steps: int, count: int) -> tuple[dict, Tensor]:
    """What one width of the view sets does -> its measures, and the data's vectors of the first seed (ITEMS, D)."""
    views = view_sets(ITEMS, OWN, reach)
    tables = train_tables(views, seeds, steps)
    data = tables[:, ::OWN]  # (seeds, ITEMS, D): the identity view is the first cell
    return {
        "reach": reach,
        "information": view_information(views),
        "loss": infonce_loss(tables, views).tolist(),
        "random": [rises(table, views, random_permutations(ITEMS, count)).tolist() for table in tables],
        "rotations": [rises(table, views, rotations(ITEMS)).tolist() for table in tables],
        "accuracy": {name: [neighbour_accuracy(x, labels) for x in data] for name, labels in LABELS.items()},
    }, data[0]


def try_all_permutations(reach: int, seeds: int, steps: int) -> dict:
    """A ring of seven data, one cell each: how many permutations leave the loss alone, raise it, lower it; for each seed."""
    views = view_sets(RING, 1, reach)
    permutations = torch.tensor(list(itertools.permutations(range(RING))))
    changes = torch.stack([rises(table, views, permutations) for table in train_tables(views, seeds, steps)])
    joint = views.T @ views
    symmetries = [bool((joint[p][:, p] - joint).abs().max() < UNCHANGED) for p in permutations]
    return {
        "reach": reach,
        "symmetries": sum(symmetries),
        "unchanged": (changes.abs() < UNCHANGED).sum(dim=1).tolist(),
        "lower": (changes < -UNCHANGED).sum(dim=1).tolist(),
        "least rise": [row[row.abs() >= UNCHANGED].min().item() for row in changes if row.abs().max() >= UNCHANGED],
    }


def summary(changes: list[list[float]]) -> dict[str, float]:
    """Of all seeds and permutations, nats."""
    values = torch.tensor(changes, dtype=torch.double)
    return {"least": values.min().item(), "mean": values.mean().item(), "greatest": values.max().item()}


def draw_placement(axes: Axes, vectors: Tensor, title: str) -> None:
    """The data's vectors on their two principal axes, coloured by arc, neighbours on the ring joined."""
    centred = vectors - vectors.mean(dim=0)
    flat = (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T).tolist()  # (N, 2)
    axes.plot(*zip(*flat, flat[0], strict=True), color=MUTED, linewidth=0.5, alpha=0.6, zorder=1)
    axes.scatter(*zip(*flat, strict=True), c=[PALETTE[label] for label in LABELS["arc of the ring"]], s=22, zorder=2)
    axes.set(title=title, xlabel="first principal axis", ylabel="second", aspect="equal", xticks=[], yticks=[])


def draw_rises(axes: Axes, rings: list[dict]) -> None:
    """Each permutation a dot."""
    rows = {
        "disjoint,\nrandom": (DISJOINT, "random"),
        "colliding,\nrotations": (COLLIDING, "rotations"),
        "colliding,\nrandom": (COLLIDING, "random"),
    }
    jitter = torch.Generator().manual_seed(0)
    for height, (reach, kind) in enumerate(rows.values()):
        values = torch.tensor(rings[REACHES.index(reach)][kind]).flatten()
        heights = height + 0.5 * (torch.rand(len(values), generator=jitter) - 0.5)
        axes.scatter(values, heights, s=5, alpha=0.35, color=PALETTE[height], linewidths=0)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(title="The loss of permuted tables", xlabel="rise of the loss (nats)", ylim=(-0.6, len(rows) - 0.4))


def draw_sweep(axes: Axes, curves: dict[str, list[list[float]]]) -> None:
    """Means with the range over seeds, against the width of the view sets; the disjoint ones on grey."""
    for index, (name, values) in enumerate(curves.items()):
        mean = [sum(seeds) / len(seeds) for seeds in values]
        axes.plot(REACHES, mean, marker="o", markersize=4, color=PALETTE[index], label=name)
        low, high = map(min, values), map(max, values)
        axes.fill_between(REACHES, list(low), list(high), color=PALETTE[index], alpha=0.2, linewidth=0)
    axes.axvspan(0.85, 2.45, color="#EEF1F4", zorder=0)
    axes.text(1.45, 1.0, "disjoint", transform=axes.get_xaxis_transform(), ha="center", va="top", color=MUTED)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 32, ITEMS * OWN], [1, 2, 4, 8, 16, 32, ITEMS * OWN])
    axes.set(xlabel=f"views of each datum, of {ITEMS * OWN} cells", xlim=(0.85, 1.2 * ITEMS * OWN))


def draw(rings: list[dict], placements: list[Tensor], exhaustive: list[dict], path: Path) -> None:
    """All panels, saved to `path`."""
    with house_figure(path, height=7.2, width=12.5) as figure:
        (disjoint, colliding, spread), (loss, accuracy, counts) = figure.subplots(2, 3)
        draw_placement(disjoint, placements[REACHES.index(DISJOINT)], "Disjoint views: placed at random")
        draw_placement(colliding, placements[REACHES.index(COLLIDING)], "Colliding views: the ring, found")
        draw_rises(spread, rings)
        means = [[sum(some) / len(some) for some in ring["random"]] for ring in rings]
        information = [[ring["information"]] for ring in rings]
        draw_sweep(loss, {"rise, random permutations": means, "information of two views": information})
        loss.set(title="What a permutation costs", ylabel="nats", ylim=(-0.4, 11))
        loss.legend(loc="upper right")
        draw_sweep(accuracy, {name: [ring["accuracy"][name] for ring in rings] for name in LABELS})
        chance = (ITEMS // 4 - 1) / (ITEMS - 1)
        accuracy.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="chance")
        accuracy.set(title="The nearest neighbour has the same label", ylabel="accuracy", ylim=(-0.04, 1.04))
        accuracy.legend(loc="center", title="labels")
        heights = [each["unchanged"][0] for each in exhaustive]
        bars = counts.bar([each["reach"] for each in exhaustive], heights, color=PALETTE[0], width=0.7)
        counts.bar_label(bars, [f"{height:,}" for height in heights], fontsize=9)
        counts.set(title=f"Ring of {RING}: all {math.factorial(RING):,} permutations", yscale="log", ylim=(1, 2e4))
        counts.set(xlabel=f"views of each datum, of {RING} cells", ylabel="leave the loss unchanged")


def main(arguments: list[str]) -> int:
    """Train, permute, write results.json and figure.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("model_cards/permutation"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--permutations", type=int, default=200, help="drawn for each seed")
    args = parser.parse_args(arguments)
    measured = [measure_ring(reach, args.seeds, args.steps, args.permutations) for reach in REACHES]
    rings, placements = (list(each) for each in zip(*measured, strict=True))
    exhaustive = [try_all_permutations(reach, args.seeds, args.steps) for reach in range(1, RING + 1)]
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [{**ring, **{kind: summary(ring[kind]) for kind in ("random", "rotations")}} for ring in rings]
    for row in rows:
        rise, right = row["random"], {name: f"{sum(x) / len(x):.2f}" for name, x in row["accuracy"].items()}
        print(
            f"{row['reach']:3} views: permuting raises the loss by {rise['least']:.1e} to {rise['greatest']:.1e}; {right}"
        )
    results = {"seeds": args.seeds, "steps": args.steps, "rings": rows, "all permutations": exhaustive}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(rings, placements, exhaustive, args.out / "figure.png")
    print(f"Written: {args.out / 'results.json'}, {args.out / 'figure.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
