"""Where a training step's time goes: data, forward, loss, backward, optimizer. A part of benchmark.py."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

import hf_infomax
from benchmark_views import images_of
from hf_infomax import data
from hf_infomax.data import recipes
from recipe import load_recipe, model_config, precision
from sources import view_options
from stopwatch import Parts, interleaved
from threads import Threads

STEPS = 12  # of which the first two warm up
QUEUE = 65_536


@dataclass
class Setting:
    """A run whose steps are timed: its method, its views, images of a step and pixels of their sides."""

    config: hf_infomax.models.configuration_infomax.InfoMaxConfig
    method: str
    views: data.Views
    batch_size: int
    side: int = 32
    steps: int = STEPS


def dim_local() -> Setting:
    """The model, views and batch size of the recipe dim_local_cifar10_cpu."""
    recipe = load_recipe("dim_local_cifar10_cpu")
    config = model_config(recipe)
    views = recipes.load(image_size=config.image_size, **view_options(recipe))
    return Setting(config, recipe.method, views, recipe.train.batch_size)


def two_view_resnet() -> Setting:
    """SimCLR's two views, a ResNet-18 in its CIFAR form, InfoNCE in the batch."""
    config = hf_infomax.InstDiscConfig(backbone="resnet18_cifar", negatives="batch", temperature=0.2)
    return Setting(config, "instdisc", recipes.load("simclr", image_size=32), 64)


def infomin(backbone: str, side: int, batch_size: int, steps: int) -> Setting:
    """InfoMin whole: two strong views, nine pieces, the momentum copy, a queue of 65,536 keys."""
    config = hf_infomax.InfoMinConfig(
        backbone=backbone, image_size=side, queue_size=QUEUE, image_mean=(0.485, 0.456, 0.406)
    )
    return Setting(config, "infomin", recipes.load("infomin", image_size=side), batch_size, side, steps)


RUNS: dict[str, Callable[[], Setting]] = {
    "dim_local_cifar10_cpu": dim_local,
    "two-view ResNet-18": two_view_resnet,
    "InfoMin, ResNet-18 at 32, 65,536 keys": lambda: infomin("resnet18_cifar", 32, 64, 5),
    "InfoMin, ResNet-50 at 224, 65,536 keys": lambda: infomin("resnet50", 224, 8, 3),
}


def measure(device: str) -> Iterator[tuple[str, int, dict[str, float], float]]:
    """(run, images of a step, median seconds of each part of a step, speed of the whole step over the encoder's alone)."""
    for name, build in RUNS.items():
        run = Run(build(), device)
        yield name, run.setting.batch_size, run.parts(), run.against_the_encoder()


class Run:
    """Steps of a model as pretrain.py takes them, without what is logged and saved."""

    def __init__(self, setting: Setting, device: str, images: int = 1024):
        self.setting, self.views, self.device = setting, setting.views, device
        self.model = hf_infomax.METHODS[setting.method][2](setting.config)
        self.model.to(device, memory_format=torch.channels_last)
        self.state = self.model.training_state(images, torch.device(device))
        for queue in getattr(self.state, "queues", {}).values():  # of random keys: what they say costs no time
            queue.enqueue(torch.randn(queue.size, queue.rows.shape[1], device=device))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=True)
        # Large images are read as often as there are few of them.
        pixels = images_of(setting.side, images if setting.side < 64 else 2 * setting.batch_size)
        self.loader = data.data_loader(data.DecodedDataset(pixels), setting.batch_size, shuffle=True, drop_last=True)
        self.batches, self.taken = self._forever(), 0

    def _forever(self) -> Iterator[dict[str, Tensor]]:
        while True:
            for batch in self.loader:
                yield {key: value.to(self.device) for key, value in batch.items()}

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=precision("auto") == "bf16")

    def step(self, parts: Parts) -> None:
        with parts("data: read"):
            batch = next(self.batches)
        with parts("data: views"):
            batch |= self.views(**batch, epoch=0)
        with parts("forward and loss"), self.autocast():
            output = self.model(**batch, state=self.state)
        with parts("backward"):
            output.loss.backward()
        with parts("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.state is not None:
            with parts("queue and copy, after the step"):
                self.state.after_step(output, self.taken)
        self.taken += 1

    def parts(self) -> dict[str, float]:
        """Median seconds of each part; the forward pass is told from the loss by hooks on the encoders."""
        for _ in range(2):
            self.step(Parts())
        parts, inside = Parts(), Parts()
        encoders = {"encoder, forward": self.model.model.encoders}
        if self.state is not None:
            encoders["keys, forward"] = self.state.copy.model.model.encoders
        entered, hooks = [], []
        for name, modules in encoders.items():
            for module in modules.values():
                hooks.append(module.register_forward_pre_hook(lambda *_, name=name: _enter(entered, inside, name)))
                hooks.append(module.register_forward_hook(lambda *_: _leave(entered)))
        for _ in range(self.setting.steps):
            self.step(parts)
        for hook in hooks:
            hook.remove()
        within = {name: median_of_steps(inside.times[name], self.setting.steps) for name in encoders}
        medians = parts.medians()
        both = medians.pop("forward and loss")
        critic = {"heads, critic and bound": both - sum(within.values())}
        named = {name: medians.pop(name) for name in ("data: read", "data: views")}
        return {**named, **within, **critic, **medians}

    def against_the_encoder(self) -> float:
        """Images a second of the whole step, over those of the encoder's forward and backward alone on what it is trained on."""
        batch = next(self.batches)
        shown = self.views(**batch, epoch=0)
        images = [shown["pixel_values"].flatten(0, -4)]
        if self.state is not None:  # the second view is the copy's
            images = [shown["pixel_values"][:, 0], shown["jigsaw_values"].flatten(0, 1)]

        def encoder_alone() -> None:
            with self.autocast():
                vectors = [list(self.model.layers(view).values())[-1] for view in images]
                loss = sum(vector.float().square().mean() for vector in vectors)
            loss.backward()
            self.model.zero_grad()

        taken = interleaved({"step": lambda: self.step(Parts()), "encoder": encoder_alone}, least=2)
        return taken["encoder"] / taken["step"]


def median_of_steps(seconds: list[float], steps: int) -> float:
    """The median over steps of what each step's calls took together."""
    calls = len(seconds) // steps
    return median(sum(seconds[step * calls : (step + 1) * calls]) for step in range(steps))


def beside_a_neighbour(device: str, rounds: int = 5, steps: int = 30) -> float:
    """The speed of dim_local_cifar10_cpu beside a process that computes without pause, over its speed alone."""
    run = Run(dim_local(), device)
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
    run = Run(RUNS[name](), "cpu", images=512)
    return lambda: run.step(Parts())


def _enter(entered: list, inside: Parts, name: str) -> None:
    entered.append(inside(name))
    entered[-1].__enter__()


def _leave(entered: list) -> None:
    entered.pop().__exit__(None, None, None)
