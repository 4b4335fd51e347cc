"""Train an encoder by a recipe: one Accelerate loop, readable from top to bottom.

    accelerate launch training/pretrain.py RECIPE [key=value ...]
    accelerate launch training/pretrain.py dim_local_cifar10_cpu output_dir=outputs/dim train.epochs=5

writes OUT/model, OUT/checkpoints, OUT/metrics.jsonl, OUT/results.json, OUT/recipe.yaml and OUT/*.png. Ctrl-C leaves a
checkpoint; the same command with resume=true goes on from it, exactly. The keys are in recipe.py.
"""

import process  # noqa: F401 (before torch)

# isort: split
import math
import platform
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import datasets
import timm
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from omegaconf import OmegaConf

import command
import hf_infomax
from checkpoint import Progress, load, newest, save
from hf_infomax.data import every_image
from hf_infomax.data import recipes as view_recipes
from hf_infomax.evaluation import HEALTH, LABEL_FREE, Row, plot_knn, plot_training, write_results
from metrics import Metrics
from monitor import Monitor
from plateau import agreed_drops
from recipe import Recipe, TrainRecipe, cpu_capabilities, load_recipe, model_config, precision
from sources import training_loader, view_options
from threads import Threads


class Stop:
    """Remembers a Ctrl-C (or SIGTERM) so that the step under way ends first; a second one ends the program at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Stop":
        self._before = {sig: signal.signal(sig, self._request) for sig in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _request(self, *_: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(self, *_: Any) -> None:
        for sig, handler in self._before.items():
            signal.signal(sig, handler)


def learning_rate_factor(train: TrainRecipe, step: int, total: int, steps_per_epoch: int, drops: int = 0) -> float:
    """The schedule as a pure function of the step and of the plateaus so far, so that a resumed run needs no scheduler's state."""
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    if train.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - train.warmup_steps) / max(total - train.warmup_steps, 1)))
    if train.schedule == "step":
        return train.step_factor ** sum(step >= epoch * steps_per_epoch for epoch in train.step_epochs)
    if train.schedule == "plateau":
        return train.step_factor**drops
    return 1.0


def build_optimizer(train: TrainRecipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The recipe's optimizer; every group remembers its own peak learning rate as `initial_lr`."""
    for group in groups:
        group["initial_lr"] = group["lr"]
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=train.learning_rate, momentum=train.momentum)
    adam = torch.optim.AdamW if train.optimizer == "adamw" else torch.optim.Adam
    return adam(groups, lr=train.learning_rate, betas=tuple(train.betas), fused=True)


def prepare_output(recipe: Recipe) -> tuple[Path, Path | None]:
    """Make the output folder -> it, and the checkpoint to go on from. A run that is there already is never overwritten."""
    out = Path(recipe.output_dir)
    last = newest(out / "checkpoints")
    if not recipe.resume and (last or (out / "model").exists()):
        raise hf_infomax.UsageError(
            f"'{out}' already holds a run: add resume=true to continue it, or choose another output_dir."
        )
    out.mkdir(parents=True, exist_ok=True)
    return out, last


def all_shown(images: Any, batch_size: int, augment: Any, accelerator: Accelerator, epoch: int) -> Iterator[dict]:
    """Every image of the data as a model is shown it, batch by batch, in views that no step of the epoch will have.

    A bank that has seen the very view that it is asked about knows more than a view tells.
    """
    for batch in accelerator.prepare_data_loader(every_image(images, batch_size)):
        yield batch | augment(**batch, epoch=~epoch)


def views_drawn_at(progress: Progress, batches: int, replacement: bool) -> int:
    """What the views of a batch are drawn by, beside the seed and their images: the epoch, in which each image is shown once; or,
    where it may be shown twice, the batch, so that it is not in the same view."""
    return progress.epoch * batches + progress.batch if replacement else progress.epoch


def train(recipe: Recipe) -> Path:
    """Run a recipe -> its output folder. Longer than a function should be, for it is the loop.

    Raises:
        KeyboardInterrupt: the run was interrupted, and has been saved.
        UsageError: the recipe, its data or its loss has something that the user can mend.
    """
    cfg = recipe.train
    out, last = prepare_output(recipe)
    accelerator = Accelerator(
        mixed_precision=precision(cfg.precision),
        gradient_accumulation_steps=cfg.gradient_accumulation,
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=cfg.seed),
        dynamo_backend="inductor" if cfg.compile else "no",
        log_with=cfg.trackers or None,
        project_dir=out,
    )
    set_seed(cfg.seed)
    threads = Threads(cfg.threads)

    config = model_config(recipe)
    network = hf_infomax.METHODS[recipe.method][2](config)  # views x encoder x critic x negatives x bound
    augment = view_recipes.load(image_size=config.image_size, **view_options(recipe))  # on the training device
    replacement = network.wants_replacement if recipe.data.replacement is None else recipe.data.replacement
    images, num_samples = training_loader(recipe, config.image_size, accelerator, replacement)
    monitor = Monitor.build(recipe, config.image_size) if accelerator.is_main_process else None

    if cfg.channels_last:
        network.to(memory_format=torch.channels_last)
    if cfg.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    groups = network.parameter_groups(cfg.learning_rate, cfg.weight_decay)
    model, optimizer, loader = accelerator.prepare(network, build_optimizer(cfg, groups), images)
    state = network.training_state(num_samples, accelerator.device)  # None where a method needs none
    set_seed(
        cfg.seed, device_specific=True
    )  # from here on every process draws negatives, and views of a stream, of its own
    progress = load(last, accelerator, model, optimizer, state) if last else Progress()

    steps_per_epoch = math.ceil(len(loader) / cfg.gradient_accumulation) if num_samples else cfg.max_steps
    total = min(cfg.epochs * steps_per_epoch, cfg.max_steps or sys.maxsize)
    accelerator.init_trackers("trackers", {"recipe": OmegaConf.to_yaml(OmegaConf.structured(recipe))})
    metrics = Metrics(out, accelerator, progress, total, steps_per_epoch)
    if accelerator.is_main_process:
        OmegaConf.save(OmegaConf.structured(recipe), out / "recipe.yaml")
        metrics.bar.write(describe(recipe, network, accelerator, num_samples, progress, total))

    with Stop() as stop, metrics.bar:
        while progress.step < total and not stop.requested:
            drops = agreed_drops(cfg, metrics.history)
            model.train()
            if state is not None:
                everything = partial(all_shown, images.dataset, cfg.batch_size, augment, accelerator, progress.epoch)
                with accelerator.autocast():
                    state.before_epoch(progress.epoch, network, everything)
            loader.set_epoch(progress.epoch)
            started, images_before = time.perf_counter(), progress.images
            for batch in accelerator.skip_first_batches(loader, progress.batch) if progress.batch else loader:
                with accelerator.accumulate(model):
                    drawn = views_drawn_at(progress, len(loader) if replacement else 0, replacement)
                    output = model(**batch | augment(**batch, epoch=drawn), state=state)
                    accelerator.backward(output.loss)
                    if cfg.clip_norm and accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), cfg.clip_norm)
                    factor = learning_rate_factor(cfg, progress.step, total, steps_per_epoch, drops)
                    for group in optimizer.param_groups:
                        group["lr"] = group["initial_lr"] * factor
                    optimizer.step()
                    optimizer.zero_grad()
                if state is not None:
                    state.after_step(output, progress.step)
                threads.fit()
                progress.batch += 1
                progress.images += len(batch["pixel_values"]) * accelerator.num_processes
                if not accelerator.sync_gradients:
                    continue
                progress.step += 1
                metrics.bar.update()
                if progress.step in (1, total) or progress.step % cfg.log_every == 0:
                    speed = (progress.images - images_before) / (time.perf_counter() - started)
                    metrics.log(output, progress, cfg.learning_rate * factor, speed)
                if progress.step == total or stop.requested:
                    break
            else:
                progress.epoch, progress.batch = progress.epoch + 1, 0
            progress.seconds += time.perf_counter() - started
            finished = progress.step == total
            metrics.require_finite(network, progress)
            if monitor and (finished or progress.batch == 0):
                metrics.log_health(monitor.health(network), progress)
                if finished or progress.epoch % recipe.eval.every == 0:
                    metrics.log_knn(monitor.knn(network), progress)
            due = cfg.checkpoint_every and progress.epoch % cfg.checkpoint_every == 0
            if finished or stop.requested or due:
                saved = save(out / "checkpoints", accelerator, model, optimizer, state, progress, cfg.keep_checkpoints)

    if progress.step < total:
        raise KeyboardInterrupt(f"stopped at step {progress.step}; '{saved}' goes on with resume=true")
    if accelerator.is_main_process:
        publish(out, recipe, network, metrics.history, progress, accelerator)
    accelerator.end_training()
    return out


def describe(
    recipe: Recipe, network: Any, accelerator: Accelerator, images: int | None, start: Progress, total: int
) -> str:
    """The line that a run begins with."""
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    source = f"{images:,} images" if images else "a stream"
    going_on = f", resumed at step {start.step:,}" if start.step else ""
    return (
        f"{recipe.preset or recipe.method} on {recipe.data.dataset}: {source}, {total:,} steps of {recipe.train.batch_size}; "
        f"{config_line(network.config)}, {parameters:.1f} M parameters; "
        f"{accelerator.num_processes} x {accelerator.device.type}, {accelerator.mixed_precision}{going_on}"
    )


def config_line(config: Any) -> str:
    objective = getattr(config, "bound", None) or f"predicted by {config.target}"
    return f"{config.backbone}, views {{{', '.join(config.views)}}}, {objective}"


def publish(
    out: Path, recipe: Recipe, network: Any, history: list[dict[str, Any]], progress: Progress, accelerator: Accelerator
) -> None:
    """Write OUT/model, the figures and results.json, and say how to load the encoder."""
    network.eval().save_pretrained(out / "model")
    steps = [record for record in history if "loss" in record]
    knn = [record for record in history if "knn" in record]
    name = recipe.preset or recipe.method
    curves = {name: steps}
    vince = [
        record | {"loss": None, "bound": record["parts"]["vince"]} for record in steps if "vince" in record["parts"]
    ]
    if vince:  # what was maximised, beside the bound
        curves["VINCE"] = vince
    plot_training(curves, out / "training.png")
    if knn:
        plot_knn({name: [{"epoch": record["epoch"], **record["knn"]} for record in knn]}, out / "knn.png")
    run = {
        "recipe": OmegaConf.to_container(OmegaConf.structured(recipe)),
        "images_seen": progress.images,
        "seconds": round(progress.seconds, 1),
        "images_per_second": round(progress.images / progress.seconds, 1),
        "hardware": {
            "device": device_name(accelerator),
            "processes": accelerator.num_processes,
            "cores": torch.get_num_threads(),
        },
        "precision": accelerator.mixed_precision,
        "versions": {
            module.__name__: module.__version__
            for module in (hf_infomax, torch, transformers, timm, accelerate, datasets)
        },
    }
    source = {"model": "trained", "dataset": recipe.data.dataset, "split": recipe.data.eval_split}
    rows = [
        Row(layer=layer, probe=f"knn{recipe.eval.k}", target="label", metric="accuracy", value=value, **source)
        for layer, value in (knn[-1]["knn"] if knn else {}).items()
    ]
    for record in [record["health"] for record in history if "health" in record][-1:]:
        rows += [
            Row(layer=record["layer"], probe=LABEL_FREE, target="images", metric=name, value=record[name], **source)
            for name in HEALTH
        ]
    write_results(out / "results.json", run, rows)
    print(
        f"Trained in {progress.seconds:.0f} s ({run['images_per_second']:.0f} img/s). To use the encoder:\n\n"
        f"    import hf_infomax\n    from transformers import AutoModel\n"
        f"    model = AutoModel.from_pretrained({str(out / 'model')!r})\n"
    )


def device_name(accelerator: Accelerator) -> str:
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return cpu_capabilities().get("cpu_name") or platform.processor() or accelerator.device.type


def main(arguments: list[str]) -> int:
    """The command; see `command.run` for its exit status."""
    return command.run(lambda given: train(load_recipe(given[0], given[1:])), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
