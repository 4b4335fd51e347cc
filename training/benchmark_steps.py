"""Where a training step's time goes: data, forward, loss, backward, optimizer. A part of benchmark.py."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from torch import Tensor, nn

import hf_infomax
from benchmark_views import images_of
from hf_infomax import data
from hf_infomax.data import recipes
from recipe import load_recipe, model_config, precision
from sources import view_options
from stopwatch import Parts, interleaved
from threads import Threads

STEPS = 12  # of which the first two warm up


def dim_local() -> tuple[nn.Module, data.Views, int]:
    """The model, views and batch size of the recipe dim_local_cifar10_cpu."""
    recipe = load_recipe("dim_local_cifar10_cpu")
    config = model_config(recipe)
    views = recipes.load(image_size=config.image_size, **view_options(recipe))
    return hf_infomax.METHODS[recipe.method][2](config), views, recipe.train.batch_size


def two_view_resnet() -> tuple[nn.Module, data.Views, int]:
    """SimCLR's two views, a ResNet-18 in its CIFAR form, InfoNCE in the batch."""
    config = hf_infomax.InstDiscConfig(backbone="resnet18_cifar", negatives="batch", temperature=0.2)
    return hf_infomax.InstDiscForPreTraining(config), recipes.load("simclr", image_size=32), 64


RUNS: dict[str, Callable[[], tuple[nn.Module, data.Views, int]]] = {
    "dim_local_cifar10_cpu": dim_local,
    "two-view ResNet-18": two_view_resnet,
}


def measure(device: str) -> Iterator[tuple[str, dict[str, float], float]]:
    """(run, median seconds of each part of a step, speed of the whole step as a part of the encoder's alone)."""
    pixels = images_of(32, 1024)
    for name, build in RUNS.items():
        model, views, batch_size = build()
        model.to(device, memory_format=torch.channels_last)
        loader = data.data_loader(data.DecodedDataset(pixels), batch_size, shuffle=True, drop_last=True)
        run = Run(model, views, loader, device)
        parts = run.parts()
        yield name, parts, run.against_the_encoder(batch_size)


class Run:
    """Steps of a model as pretrain.py takes them, without what is logged and saved."""

    def __init__(self, model: nn.Module, views: data.Views, loader: torch.utils.data.DataLoader, device: str):
        self.model, self.views, self.loader, self.device = model, views, loader, device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        self.encoders = list(model.model.encoders.values())
        self.batches = self._forever()

    def _forever(self) -> Iterator[dict[str, Tensor]]:
        while True:
            for batch in self.loader:
                yield {key: value.to(self.device) for key, value in batch.items()}

    def step(self, parts: Parts) -> None:
        with parts("data: read"):
            batch = next(self.batches)
        with parts("data: views"):
            batch |= self.views(**batch, epoch=0)
        autocast = torch.autocast(self.device, torch.bfloat16, enabled=precision("auto") == "bf16")
        with parts("forward and loss"), autocast:
            loss = self.model(**batch).loss
        with parts("backward"):
            loss.backward()
        with parts("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()

    def parts(self) -> dict[str, float]:
        """Median seconds of each part; the forward pass is told from the loss by a hook on the encoder."""
        for _ in range(2):
            self.step(Parts())
        parts, inside = Parts(), Parts()
        entered = []
        hooks = []
        for module in self.encoders:
            hooks.append(module.register_forward_pre_hook(lambda *_: _enter(entered, inside)))
            hooks.append(module.register_forward_hook(lambda *_: _leave(entered)))
        for _ in range(STEPS):
            self.step(parts)
        for hook in hooks:
            hook.remove()
        medians = parts.medians()
        encoder = inside.medians()["encoder"]
        both = medians.pop("forward and loss")
        return {
            "data: read": medians["data: read"],
            "data: views": medians["data: views"],
            "encoder, forward": encoder,
            "critic and bound": both - encoder,
            "backward": medians["backward"],
            "optimizer": medians["optimizer"],
        }

    def against_the_encoder(self, batch_size: int) -> float:
        """Images a second of the whole step, over those of the encoder's forward and backward alone."""
        batch = next(self.batches)
        images = self.views(**batch, epoch=0)["pixel_values"]

        def encoder_alone() -> None:
            with torch.autocast(self.device, torch.bfloat16, enabled=precision("auto") == "bf16"):
                layers = self.model.layers(images.flatten(0, -4))
                loss = layers[next(reversed(layers))].float().square().mean()
            loss.backward()
            self.model.zero_grad()

        taken = interleaved({"step": lambda: self.step(Parts()), "encoder": encoder_alone})
        return taken["encoder"] / taken["step"]


def beside_a_neighbour(device: str, rounds: int = 5, steps: int = 30) -> float:
    """The speed of dim_local_cifar10_cpu beside a process that computes without pause, over its speed alone."""
    model, views, batch_size = dim_local()
    model.to(device, memory_format=torch.channels_last)
    loader = data.data_loader(data.DecodedDataset(images_of(32, 1024)), batch_size, shuffle=True, drop_last=True)
    run = Run(model, views, loader, device)
    # Begun by a shell that ends at once: a child would be counted as one's own.
    begin = f"{sys.executable} -c 'while True: pass' > /dev/null & echo $!"
    neighbour = int(subprocess.check_output(begin, shell=True))
    threads = Threads(seconds=0.5)
    speeds: dict[bool, list[float]] = {False: [], True: []}
    try:
        for turn in range(2 * rounds + 2):
            busy = bool(turn % 2)
            os.kill(neighbour, signal.SIGCONT if busy else signal.SIGSTOP)
            started = time.perf_counter()
            for _ in range(steps):
                run.step(Parts())
                threads.fit()
            if turn > 1:  # the first of each warm up
                speeds[busy].append(steps / (time.perf_counter() - started))
    finally:
        os.kill(neighbour, signal.SIGKILL)
    return median(speeds[True]) / median(speeds[False])


def one_step(name: str) -> Callable[[], None]:
    """The first step of a run on the CPU, for its peak memory."""
    model, views, batch_size = RUNS[name]()
    loader = data.data_loader(data.DecodedDataset(images_of(32, 512)), batch_size, shuffle=True, drop_last=True)
    run = Run(model.to(memory_format=torch.channels_last), views, loader, "cpu")
    return lambda: run.step(Parts())


def _enter(entered: list, inside: Parts) -> None:
    entered.append(inside("encoder"))
    entered[-1].__enter__()


def _leave(entered: list) -> None:
    entered.pop().__exit__(None, None, None)
