"""The momentum copy: an encoder that follows the one that is trained, and gives the keys it is compared with (He et al. 2020)."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .errors import UsageError, choose
from .processes import gather, own_part, total, world

#: How the copy normalises a batch, by the name that configurations use: whether by running statistics.
NORMS = {"shuffle": False, "running": True}


class MomentumCopy:
    r"""A copy of a model whose weights are a running mean of its weights.

    .. math:: \theta_k \leftarrow m\, \theta_k + (1 - m)\, \theta_q

    A batch norm tells images of their batch: were a query and its key normalised by the statistics of the same images, what they
    share would be found without looking at the image. Two ways out of it:

    - "shuffle": the images of all processes are put in a random order and encoded in groups, each by statistics of its own, on one
      device as on several; 32 to a group are MoCo's 256 on eight GPUs. Without a batch norm nothing is shuffled.
    - "running": the copy's statistics are the running means of the model's running ones, whatever the batch (EMAN, Cai et al.
      2021).

    Args:
        model: that is trained, with `embeddings(pixel_values)`, which gives view -> (B, D).
        momentum: m.
        norm: "shuffle" or "running".
        group: images that "shuffle" normalises together.
        seed: of the orders; all processes must give the same.

    Raises:
        UsageError: there is no such norm, or m is outside [0, 1].
    """

    def __init__(
        self, model: nn.Module, momentum: float = 0.999, norm: str = "shuffle", group: int = 32, seed: int = 0
    ):
        if not 0 <= momentum <= 1 or group < 2:
            raise UsageError(
                f"encoder_momentum={momentum} and key_group={group}: give a momentum from 0 to 1, and groups of 2 or more."
            )
        self.source = model
        self.model = deepcopy(model).requires_grad_(False)
        running, batch_norm = choose("key_norm", norm, NORMS), any(isinstance(m, _BatchNorm) for m in model.modules())
        self.running, self.grouped = running and batch_norm, batch_norm and not running
        self.group, self.seed, self.draws = group, seed, 0
        self._average = get_ema_multi_avg_fn(momentum)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) of this process -> view -> keys (B, D) without gradient; a collective call."""
        self.model.train(not self.running)
        if not self.grouped:
            return self.model.embeddings(images)
        rank, processes = world()
        everyone = gather(images)  # (P * B, 3, H, W)
        self.draws += 1
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.draws) % 2**63)
        order = torch.randperm(len(everyone), generator=generator).to(images.device)
        own = order.chunk(processes)[rank]
        groups = [self.model.embeddings(everyone[group]) for group in own.chunk(max(1, len(own) // self.group))]
        back = order.argsort()
        return {view: own_part(gather(torch.cat([keys[view] for keys in groups]))[back]) for view in groups[0]}

    @torch.no_grad()
    def first(self, images: Tensor) -> dict[str, Tensor]:
        """Keys of images before the first step; running statistics, which know nothing yet, learn from them."""
        self.model.train()
        return self.model.embeddings(images)

    @torch.no_grad()
    def update(self) -> None:
        """Follow the model, after a step of its optimizer; a collective call."""
        self._average(list(self.model.parameters()), list(self.source.parameters()), 1)
        if not self.running:
            return
        processes = world()[1]  # each has seen a part of the batch
        means = [total(buffer) / processes for buffer in floating(self.source)]
        self._average(floating(self.model), means, 1)

    def save(self, file: Path) -> None:
        """Write weights and statistics; one process does."""
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        save_file(tensors | {"draws": torch.tensor(self.draws)}, file)

    def load(self, file: Path) -> None:
        """Read them, to go on exactly.

        Raises:
            UsageError: they are of another model.
        """
        tensors: dict[str, Any] = load_file(file)
        self.draws = int(tensors.pop("draws"))
        try:
            self.model.load_state_dict(tensors)
        except RuntimeError as error:
            raise UsageError(
                "The saved momentum copy is of another model than the recipe describes: resume with the recipe it was made by."
            ) from error


def floating(model: nn.Module) -> list[Tensor]:
    """The running statistics of a model, without its counts."""
    return [buffer for buffer in model.buffers() if buffer.is_floating_point()]
