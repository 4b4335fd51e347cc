"""Linear probes as the papers train them: logistic regression by SGD on a printed schedule, on features that are kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau
from tqdm.auto import tqdm

from hf_infomax.models.errors import choose

from . import logistic
from .mlp import check_training
from .probes import ProbeResult
from .splits import accuracy, classification, hold_out, seeded, shuffled_batches


@dataclass(frozen=True)
class AtEpochs:
    """The learning rate falls after fixed parts of the training."""

    parts: tuple[float, ...]  #: of all epochs
    factor: float

    def start(self, optimizer: SGD, epochs: int) -> Callable[[float], None]:
        """What is called after each epoch with the accuracy on the held-out tenth."""
        decay = MultiStepLR(optimizer, [round(epochs * part) for part in self.parts], gamma=self.factor)
        return lambda held_out: decay.step()


@dataclass(frozen=True)
class OnPlateau:
    """The learning rate falls, so many times at most, when the held-out accuracy has not improved for `patience` epochs."""

    patience: int
    factor: float
    times: int

    def start(self, optimizer: SGD, epochs: int) -> Callable[[float], None]:
        """What is called after each epoch with the accuracy on the held-out tenth."""
        least = optimizer.param_groups[0]["lr"] * self.factor**self.times
        # torch waits for more epochs than its patience says.
        decay = ReduceLROnPlateau(
            optimizer, "max", self.factor, self.patience - 1, threshold=0, min_lr=least * (1 - 1e-6), eps=0
        )
        return decay.step


@dataclass(frozen=True)
class Schedule:
    """How a paper trains its linear classifier."""

    epochs: int
    learning_rate: float
    drops: AtEpochs | OnPlateau
    weight_decay: float
    source: str
    #: Whether features are brought to a mean square length of 1, which a rate of 30 suits; else each has variance 1.
    unit_length: bool = False
    batch_size: int = 256
    momentum: float = 0.9


#: After 60 of 100 epochs and every 15 from there.
_CMC_DROPS = AtEpochs((0.60, 0.75, 0.90), 0.2)

#: Name -> schedule. What a paper does not print is a batch of 256 and CMC's drops; the scale of the features is ours.
SCHEDULES: dict[str, Schedule] = {
    "cmc": Schedule(100, 0.1, _CMC_DROPS, 0.0, "Tian et al. 2020, Contrastive Multiview Coding, D.2, AlexNet"),
    "cmc_resnet": Schedule(
        100, 30.0, _CMC_DROPS, 0.0, "Tian et al. 2020, Contrastive Multiview Coding, D.2, ResNet-50", unit_length=True
    ),
    "infomin": Schedule(
        60,
        30.0,
        _CMC_DROPS,
        0.0,
        "Tian et al. 2020, What Makes for Good Views, supplement, on the framework of MoCo",
        unit_length=True,
    ),
    "instdisc": Schedule(
        30, 0.01, OnPlateau(10, 0.1, 2), 1e-5, "Wu et al. 2020, On Mutual Information in Contrastive Learning, B.3"
    ),
}


@torch.inference_mode(False)
@torch.enable_grad()
def scheduled_linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    seed: int = 0,
    schedule: str = "cmc",
    epochs: int | None = None,
    progress: bool = True,
) -> ProbeResult:
    """Test accuracy after the last epoch of multinomial logistic regression, trained by SGD as a paper trains its own.

    The features are computed once and stay on their device: unlike in the papers, no image is augmented anew. They are
    standardised, and divided by sqrt(F) where the schedule says `unit_length`. It is fitted on nine tenths of the training split:
    the other tenth tells a schedule that waits for a plateau when to drop.

    Args:
        train_x, test_x: features, (N, F) and (M, F).
        train_y, test_y: integer classes, (N,) and (M,).
        seed: of the held-out tenth and the batches; the weights start at zero.
        schedule: a name among `SCHEDULES`.
        epochs: None: the paper's; with fewer, drops at fixed epochs come earlier in proportion.
        progress: show a bar, which goes away when it is done.

    Returns:
        Metric "accuracy", in [0, 1]; `settings` holds the schedule, its epochs, its source, and the accuracy on the held-out tenth.

    Raises:
        UsageError: there is no such schedule, the shapes do not fit, a split is too small, features are not finite, labels are not
            integers, or there is only one class.

    `linear_probe` finds the minimum itself, and chooses its regularisation.

    >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> scheduled_linear_probe(x[:300], y[:300], x[300:], y[300:], schedule="cmc", epochs=10).value > 0.9
    True
    """
    plan = choose("schedule", schedule, SCHEDULES)
    epochs = plan.epochs if epochs is None else epochs
    check_training(epochs, 1, plan.batch_size)
    problem = classification(train_x, train_y, test_x, test_y)
    train, test = problem.train, problem.test
    if plan.unit_length:  # standardised features have a mean square length of F, or fewer where some are constant
        train, test = train / math.sqrt(train.shape[1]), test / math.sqrt(train.shape[1])
    device = train.device
    fit, held = hold_out(len(train), seed, device)
    solution = torch.zeros(len(problem.classes), train.shape[1] + 1, device=device, requires_grad=True)
    optimizer = SGD(
        [solution], plan.learning_rate, plan.momentum, weight_decay=plan.weight_decay, fused=device.type == "cuda"
    )
    after_epoch = plan.drops.start(optimizer, epochs)
    with seeded(seed, device):
        for _ in tqdm(range(epochs), desc=schedule, unit="epoch", leave=False, disable=not progress):
            for batch in shuffled_batches(len(fit), plan.batch_size, device):
                index = fit[batch]
                scores = F.linear(train[index], solution[:, :-1], solution[:, -1])
                optimizer.zero_grad()
                F.cross_entropy(scores, problem.labels[index]).backward()
                optimizer.step()
            held_out = accuracy(logistic.predict(train[held], solution.detach()), problem.labels[held])
            after_epoch(held_out)
    value = problem.accuracy(logistic.predict(test, solution.detach()))
    settings = {"schedule": schedule, "epochs": epochs, "source": plan.source, "held_out_accuracy": held_out}
    return ProbeResult(value, "accuracy", settings=settings)
