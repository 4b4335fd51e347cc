"""What the methods with one critic between vectors share (CMC, InstDisc): whence their negatives, and their training state."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from .bank import MemoryBank
from .bank_state import BankState
from .bounds import infonce_set, nce
from .configuration_contrastive import ContrastiveConfig
from .errors import UsageError, choose
from .modeling_infomax import InfoMaxForPreTraining
from .negatives import FromBank, InBatch
from .neighbors import CloseNeighbors, Clusters, Nearest
from .regions import Ball, Marginal, Region

#: By the name that configurations use: whether the negatives are from a bank, and from a region that leaves something out.
NEGATIVES = {"batch": (False, False), "bank": (True, False), "ball": (True, True), "annulus": (True, True)}
POSITIVES = {"own": False, "close": True}
CLOSE: dict[str, Callable[[ContrastiveConfig, int], CloseNeighbors]] = {
    "clusters": lambda config, seed: Clusters(
        config.num_clusters, config.num_clusterings, config.cluster_iterations, seed
    ),
    "nearest": lambda config, seed: Nearest(config.num_neighbors),
}

Sampler = InBatch | FromBank


class ContrastiveForPreTraining(InfoMaxForPreTraining):
    """Vectors against vectors, by one critic: of the batch, or of a memory bank for each view."""

    further_bounds = {"nce": nce}
    #: Whence negatives may be, by the name that configurations use; a method may know more.
    origins = NEGATIVES

    #: Negatives of an image that a bank is asked for where the configuration says nothing.
    paper_negatives: int

    def choose_negatives(self, size: int) -> None:
        """Read where negatives and positives are from, and refuse what does not belong together; called by the method's init.

        Args:
            size: of the vectors that are compared, which a bank keeps.
        """
        config, self.size = self.config, size
        self.banked, restricted = choose("negatives", config.negatives, self.origins)
        self.close_positive = choose("positives", config.positives, POSITIVES)
        self.make_close = choose("close_neighbors", config.close_neighbors, CLOSE)
        if config.bound == "nce" and config.negatives != "bank":
            raise UsageError(
                "bound='nce' draws its noise from all of the data: take negatives='bank', or bound='infonce'."
            )
        if self.close_positive and (config.negatives != "ball" or config.bound != "infonce"):
            raise UsageError(
                "positives='close' is Local Aggregation, which contrasts close with background neighbours: take "
                "negatives='ball' and bound='infonce' with it."
            )
        if config.anneal and not restricted:
            raise UsageError(f"anneal='{config.anneal}' needs a region to shrink: take negatives='ball' or 'annulus'.")
        self.negatives = InBatch(None if self.banked else config.num_negatives)

    @property
    def wants_replacement(self) -> bool:
        """True with a bank: shown once an epoch, an image has an older row than most others, which a critic can tell."""
        return self.banked

    def training_state(self, num_samples: int | None, device: torch.device) -> BankState | None:
        """A memory bank for each view, where the negatives come from one.

        Raises:
            UsageError: the number of samples is not known (a stream), or it is too small for the negatives.
        """
        config = self.config
        if not self.banked:
            return None
        if num_samples is None:
            raise UsageError(
                "A memory bank has a row for each image, and a stream has no index: set data.streaming=false."
            )
        seed = torch.initial_seed() % 2**32
        make = partial(MemoryBank, num_samples, self.size, config.bank_momentum, config.bank_dtype, device)
        close = None
        if config.negatives == "annulus" or self.close_positive:
            close = {name: self.make_close(config, seed + place) for place, name in enumerate(config.views)}
        return BankState(
            {name: make(seed=seed + place) for place, name in enumerate(config.views)},
            self._region(num_samples),
            close,
            config.bank_positive,
            self.close_positive,
            config.warmup_epochs,
            config.bank_fill,
            config.z_momentum,
            seed,
        )

    def _region(self, num_samples: int) -> Region:
        config = self.config
        if config.negatives == "bank":
            count = config.num_negatives or min(self.paper_negatives, num_samples - 1)
            return Marginal(count, config.shared_negatives)
        return Ball(config.ball_size, config.num_negatives, config.anneal, config.anneal_epochs)

    def samplers(
        self, state: BankState | None, sample_index: Tensor | None, views: Sequence[str]
    ) -> Mapping[str, Sampler]:
        """View -> where the negatives of this step are from."""
        if not self.banked:
            return dict.fromkeys(views, self.negatives)
        if state is None:
            raise UsageError(
                f"negatives='{self.config.negatives}' needs state=model.training_state(num_samples, device)."
            )
        return state.negatives(sample_index)

    def estimate(self, pair: str, positive: Tensor, negative: Tensor, state: BankState | None) -> Tensor:
        """The bound, of scores as a sampler gives them."""
        if self.config.bound == "nce":
            return nce(positive, negative, state.running_log_z(pair, negative), state.num_samples)
        if self.close_positive:
            return infonce_set(positive, negative.squeeze(1))
        return self.bound(positive, negative)

    @torch.no_grad()
    def vince(
        self, sampler: Sampler, positive: Tensor, negative: Tensor, y: Tensor, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What is told of a bound whose negatives are of a region: VINCE in nats, InfoNCE beside it, and for how many images
        VINCE is the lower of the two (`FromBank.told`); nothing where they are of the marginal."""
        if not isinstance(sampler, FromBank) or sampler.candidates.marginal is None:
            return {}
        value = infonce_set(positive, negative.squeeze(1), separately=True)  # of one positive: InfoNCE
        # Asked by all processes, whatever each has of the pair.
        told = sampler.told(self.critic, y, positive, negative, rows)
        return {"vince": value, **told} if len(positive) else {}


def mean_of(told: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over pairs of views of what is told of each, where anything is."""
    told = [one for one in told if one]
    return {name: torch.stack([one[name] for one in told]).mean() for name in told[0]} if told else {}
