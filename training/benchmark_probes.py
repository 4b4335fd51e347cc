"""Speed of the probes beside scikit-learn and FAISS, with the accuracy of each. A part of benchmark.py.

On the threads that torch has, which the others are given too. The features are synthetic: correlated, with a spectrum that falls as
a network's does, and classes that overlap.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from torch import Tensor
from torch.nn import functional as F

from hf_infomax.evaluation import knn_predict, logistic
from hf_infomax.evaluation.splits import Problem, classification
from hf_infomax.evaluation.svm import fit_svm
from hf_infomax.models.neighbors import require_faiss

SAMPLES, QUERIES, SIZE, CLASSES = 50_000, 10_000, 1_024, 10
K, TEMPERATURE, STRENGTH = 20, 0.1, 1e-2

# scikit-learn's SVM goes through the samples so many times at most: its default is 1,000. Of the smaller problem, on which the two
# are compared when both have converged, that is little.
PASSES = 100
CONVERGED = {"samples": 10_000, "size": 256, "passes": 2_000}


@dataclass
class Timed:
    """One way to an accuracy."""

    what: str
    way: str
    seconds: float
    accuracy: float


def make_problem(samples: int = SAMPLES, queries: int = QUERIES, size: int = SIZE) -> Problem:
    """Standardised features of overlapping classes whose variances fall as 1 / rank, in a random basis."""
    draw = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, size + 1).rsqrt()
    labels = torch.randint(CLASSES, (samples + queries,), generator=draw)
    x = torch.randn(samples + queries, size, generator=draw)
    x[:, :64] += 0.35 * torch.randn(CLASSES, 64, generator=draw)[labels]
    x = (x * spectrum) @ torch.randn(size, size, generator=draw)
    return classification(x[:samples], labels[:samples], x[samples:], labels[samples:])


def neighbour_ways(problem: Problem) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The weighted vote of the nearest by cosine."""
    yield "ours", lambda: knn_predict(problem.test, problem.train, problem.labels, K, "cosine", TEMPERATURE)
    faiss = require_faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())

    def vote() -> Tensor:
        index = faiss.IndexFlatIP(problem.train.shape[1])
        index.add(F.normalize(problem.train).numpy())
        similarity, found = index.search(F.normalize(problem.test).numpy(), K)
        votes = torch.zeros(len(similarity), CLASSES)
        weights = torch.from_numpy(similarity).div(TEMPERATURE).exp()
        return votes.scatter_add_(1, problem.labels[torch.from_numpy(found)], weights).argmax(dim=1)

    yield "FAISS", vote
    peer = KNeighborsClassifier(
        K, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / TEMPERATURE)
    ).fit(problem.train.numpy(), problem.labels.numpy())
    yield "scikit-learn", lambda: torch.from_numpy(peer.predict(problem.test.numpy()))


def linear_ways(problem: Problem) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Logistic regression of one strength, until no entry of the gradient exceeds one tolerance; and by the other's default."""
    start = torch.zeros(CLASSES, problem.train.shape[1] + 1)
    cost = 1 / (STRENGTH * len(problem.train))
    x, labels, test = problem.train.numpy(), problem.labels.numpy(), problem.test.numpy()
    yield "ours", lambda: logistic.predict(problem.test, logistic.fit(problem.train, problem.labels, STRENGTH, start))
    for way, options in (("scikit-learn", {"tol": logistic.TOLERANCE}), ("scikit-learn, its default tolerance", {})):
        peer = LogisticRegression(C=cost, **options)
        yield way, lambda peer=peer: torch.from_numpy(peer.fit(x, labels).predict(test))


def svm_ways(problem: Problem, passes: int = PASSES) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The linear SVM of one strength."""
    start = torch.zeros(CLASSES, problem.train.shape[1] + 1)
    # It regularises the intercept, the less the larger its scale.
    peer = LinearSVC(loss="hinge", C=1 / (STRENGTH * len(problem.train)), max_iter=passes, intercept_scaling=10)
    x, labels, test = problem.train.numpy(), problem.labels.numpy(), problem.test.numpy()
    yield "ours", lambda: logistic.predict(problem.test, fit_svm(problem.train, problem.labels, STRENGTH, start))
    yield f"scikit-learn, {passes:,} passes", lambda: torch.from_numpy(peer.fit(x, labels).predict(test))


PARTS = {"kNN, cosine": neighbour_ways, "linear probe": linear_ways, "linear SVM": svm_ways}


def measure(problem: Problem | None = None) -> Iterator[Timed]:
    """Every way of every part, once: each takes so long that its warming up does not matter."""
    problem = make_problem() if problem is None else problem
    smaller = make_problem(min(CONVERGED["samples"], len(problem.train)), len(problem.test), CONVERGED["size"])
    asked = [(name, problem, ways(problem)) for name, ways in PARTS.items()]
    asked.append(("linear SVM, converged", smaller, svm_ways(smaller, CONVERGED["passes"])))
    for name, given, ways in asked:
        what = f"{name}: {len(given.train):,} x {given.train.shape[1]:,}, {len(given.test):,} tested"
        for way, work in ways:
            started = time.perf_counter()
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
                predicted = work()
            yield Timed(what, way, time.perf_counter() - started, given.accuracy(predicted))
