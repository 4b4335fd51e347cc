"""The non-linear probe: what one hidden layer reads from frozen features, and the small network that it is."""

from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import MultiStepLR
from tqdm.auto import tqdm

from hf_infomax.models.errors import UsageError

from .probes import ProbeResult
from .splits import classification, seeded, shuffled_batches


def small_network(features: int, classes: int, hidden: int = 200, dropout: float = 0.1) -> nn.Sequential:
    """Vectors (B, F) -> scores (B, C) by one hidden layer of ReLU units with dropout.

    >>> small_network(64, 10)(torch.zeros(2, 64)).shape
    torch.Size([2, 10])
    """
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))


def step_decay(optimizer: torch.optim.Optimizer, epochs: int) -> MultiStepLR:
    """A learning rate that falls to a fifth after 3/5 and after 4/5 of the epochs, as CMC's D.1 has it (120, 160 of 200)."""
    return MultiStepLR(optimizer, [round(epochs * part) for part in (3 / 5, 4 / 5)], gamma=0.2)


def check_training(epochs: int, average: int, batch_size: int) -> None:
    """Refuse a training that does not train, or an average over epochs that there are not.

    Raises:
        UsageError: a number is out of range.
    """
    if epochs < 1 or batch_size < 1:
        raise UsageError(f"There are {epochs} epochs of batches of {batch_size}: give at least 1 of each.")
    if not 1 <= average <= epochs:
        raise UsageError(
            f"The last {average} of {epochs} epochs cannot be averaged: choose average from 1 to {epochs}."
        )


@torch.inference_mode(False)
@torch.enable_grad()
def mlp_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    seed: int = 0,
    hidden: int = 200,
    dropout: float = 0.1,
    epochs: int = 30,
    average: int = 5,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    progress: bool = True,
) -> ProbeResult:
    """Test accuracy of a network with one hidden layer on standardised features, averaged over the last epochs.

    It minimises the mean of -log softmax(W_2 dropout(relu(W_1 x + b_1)) + b_2)[y] by Adam, with a learning rate that falls twice
    (`step_decay`). No epoch is selected: the accuracies after each of the last `average` are averaged. The paper averages 100
    epochs, which `epochs=1000, average=100` does; it prints neither its dropout rate nor its schedule.

    Args:
        train_x, test_x: features, (N, F) and (M, F).
        train_y, test_y: integer classes, (N,) and (M,).
        seed: of the weights, the batches and the dropout.
        hidden, dropout: units of the hidden layer, and the share of them that is dropped in training.
        epochs, average: how many, and how many of the last count.
        batch_size, learning_rate: of Adam.
        progress: show a bar, which goes away when it is done.

    Returns:
        Metric "accuracy", in [0, 1]; `settings` holds what it was trained with.

    Raises:
        UsageError: the shapes do not fit, a split is too small, features are not finite, labels are not integers, there is only
            one class, or a setting is out of range.

    Source: Hjelm et al. 2019, Learning Deep Representations by Mutual Information Estimation and Maximization, 4.1, 4.2, Tables
    1 and 2; Adam and its decay: Tian et al. 2020, Contrastive Multiview Coding, D.1.

    `linear_probe` and `svm_probe` are its linear siblings.

    >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] * x[:, 1] > 0).long()  # no line parts these classes
    >>> mlp_probe(x[:300], y[:300], x[300:], y[300:], batch_size=16, learning_rate=1e-2).value > 0.9
    True
    """
    check_training(epochs, average, batch_size)
    problem = classification(train_x, train_y, test_x, test_y)
    device, last = problem.train.device, []
    with seeded(seed, device):
        network = small_network(problem.train.shape[1], len(problem.classes), hidden, dropout).to(device)
        optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=True)
        decay = step_decay(optimizer, epochs)
        for epoch in tqdm(range(epochs), desc="mlp", unit="epoch", leave=False, disable=not progress):
            network.train()
            for index in shuffled_batches(len(problem.train), batch_size, device):
                loss = F.cross_entropy(network(problem.train[index]), problem.labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            decay.step()
            if epoch >= epochs - average:
                network.eval()
                with torch.no_grad():
                    last.append(problem.accuracy(network(problem.test).argmax(dim=1)))
    settings = {"hidden": hidden, "dropout": dropout, "epochs": epochs, "average": average}
    settings |= {"batch_size": batch_size, "learning_rate": learning_rate}
    return ProbeResult(fmean(last), "accuracy", settings=settings)
