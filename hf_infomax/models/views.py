"""Views: a batch -> the things of each image whose mutual information is maximised, by name, scaled for an encoder.

A view is a run of a colour space's channels, computed from `pixel_values`, or a column of the batch under its own name: depth,
normals, a label map, optical flow, a later frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .colors import COLOR_SPACES, ColorSpace
from .configuration_infomax import InfoMaxConfig
from .errors import UsageError, choose, unknown_name


class ColorViews(nn.Module):
    """RGB in [0, 1] -> views by name, each a run of a colour space's channels.

    RGB is standardised by the configuration's mean and standard deviation, other spaces are scaled to [-1, 1].

    Args:
        config: its `color_space`, `image_mean` and `image_std`.
        names: the views, such as ("L", "ab").

    Raises:
        UsageError: there is no such space, or a name is no run of its channels.
    """

    def __init__(self, config: InfoMaxConfig, names: Sequence[str]):
        super().__init__()
        self.space: ColorSpace = choose("color_space", config.color_space, COLOR_SPACES)
        self.channels = {}
        for name in names:
            self.channels[name] = self.space.split(name)
            if self.channels[name] is None:
                spelled = "".join(self.space.channels)
                raise UsageError(
                    f"View '{name}' is no run of the channels {spelled} of color_space '{config.color_space}'."
                )
        if config.color_space == "rgb":
            self.mean, self.std = list(config.image_mean), list(config.image_std)
        else:
            low, high = self.space.low, self.space.high
            self.mean = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
            self.std = [(b - a) / 2 for a, b in zip(low, high, strict=True)]

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> view name -> (B, C, H, W)."""
        if pixel_values.dim() == 5:
            raise UsageError(
                f"pixel_values have shape {tuple(pixel_values.shape)}, several crops of each image, and this method sees one: "
                "choose a recipe of views with one crop, or set views.crops=0."
            )
        if pixel_values.dim() != 4 or pixel_values.shape[1] != 3:
            raise UsageError(
                f"pixel_values must be (batch, 3, height, width) RGB in [0, 1], but have shape {tuple(pixel_values.shape)}: "
                "convert the images to RGB first."
            )
        planes = self.space.convert(pixel_values)
        mean = planes.new_tensor(self.mean)[:, None, None]
        std = planes.new_tensor(self.std)[:, None, None]
        planes = (planes - mean) / std
        return {name: planes[:, list(index)] for name, index in self.channels.items()}


@dataclass(frozen=True)
class Column:
    """A view that arrives under its own name, and what an encoder is shown of it; one entry of the configuration's `columns`.

    Args:
        channels: of a map of values, which is scaled to (value - mean) / std.
        mean, std: one number for all channels, or one for each.
        classes: instead, the number of classes of a label map (B, 1, H, W), shown as so many planes of 0 and 1; a label outside
            (unlabelled pixels) is 0 in all.
        like: instead, the colour view that this one is like: an RGB picture in [0, 1], a later frame or another crop, of which
            the same channels are shown to the same encoder.
    """

    channels: int = 1
    mean: float | list[float] = 0.0
    std: float | list[float] = 1.0
    classes: int | None = None
    like: str | None = None

    @classmethod
    def of(cls, name: str, settings: dict[str, Any] | None) -> "Column":
        """The entry `name` of a configuration, or a clear error for a key that there is not."""
        known = [field.name for field in fields(cls)]
        for key in settings or {}:
            if key not in known:
                raise unknown_name(f"key of model.columns.{name}", key, known)
        return cls(**(settings or {}))

    def __call__(self, values: Tensor) -> Tensor:
        """(B, C, H, W) -> what the encoder is shown, float32 (B, `width`, H, W); not of a column that is like a colour view."""
        if self.classes is not None:
            labels = values.squeeze(1).long()
            known = (labels >= 0) & (labels < self.classes)
            planes = F.one_hot(labels.where(known, 0), self.classes) * known.unsqueeze(-1)  # (B, H, W, classes)
            return planes.movedim(-1, 1).float()
        values = values.float()
        mean, std = (torch.as_tensor(number, device=values.device).view(-1, 1, 1) for number in (self.mean, self.std))
        return (values - mean) / std

    @property
    def width(self) -> int:
        """Channels that the encoder is shown."""
        return self.classes or self.channels


class Views(nn.Module):
    """A batch -> the configuration's views by name, (B, C, H, W) each.

    Attributes:
        encoders: view -> the name of its encoder, its own unless the view is like another.
        channels: encoder -> channels of what it is shown.
        of_the_image: the views that `pixel_values` alone gives.

    Raises:
        UsageError: the configuration names no view, one twice, or one that is neither of the colour space nor of `columns`.
    """

    def __init__(self, config: InfoMaxConfig):
        super().__init__()
        names = list(config.views)
        if not names or len(set(names)) < len(names):
            raise UsageError(f"views={names} must name one view or more, each once.")
        columns = config.columns or {}
        self.columns = {name: Column.of(name, columns[name]) for name in names if name in columns}
        self.of_the_image = tuple(name for name in names if name not in columns)
        self.colors = ColorViews(config, self.of_the_image)
        self.encoders = {name: self.columns[name].like or name if name in columns else name for name in names}
        for name, encoder in self.encoders.items():
            if encoder not in self.encoders:
                raise unknown_name(f"view that '{name}' is like", encoder, self.of_the_image)
        self.channels = {
            name: len(self.colors.channels[name]) if name in self.colors.channels else self.columns[name].width
            for name in dict.fromkeys(self.encoders.values())
        }

    def forward(
        self, pixel_values: Tensor | None, names: Sequence[str] | None = None, **columns: Tensor
    ) -> dict[str, Tensor]:
        """The views of a batch.

        Args:
            pixel_values: RGB in [0, 1] (B, 3, H, W); None where no view is read from it.
            names: the views that are wanted; None: all.
            columns: the batch's further tensors (B, C, H, W) by name; those that are no view are left alone.

        Returns:
            View name -> (B, C, H, W).

        Raises:
            UsageError: the batch lacks a view, or views have other sizes or another number of samples.
        """
        names = tuple(self.encoders) if names is None else tuple(names)
        for name in names:
            if name not in self.encoders:
                raise unknown_name("view", name, tuple(self.encoders))
        sources = {name: self._source(name, pixel_values, columns) for name in names}
        require_alike(sources)
        colors = self.colors(pixel_values) if any(name in self.of_the_image for name in names) else {}
        return {name: colors[name] if name in colors else self._column(name, sources[name]) for name in names}

    def _source(self, name: str, pixel_values: Tensor | None, columns: dict[str, Tensor]) -> Tensor:
        source = pixel_values if name in self.of_the_image else columns.get(name)
        if source is None:
            given = ", ".join(["pixel_values"] * (pixel_values is not None) + list(columns)) or "nothing"
            wanted = "pixel_values" if name in self.of_the_image else f"'{name}'"
            raise UsageError(
                f"The view '{name}' needs {wanted}, and the batch has {given}: give the model that tensor (a recipe names it in "
                "data.columns), or leave the view out of model.views."
            )
        return source

    def _column(self, name: str, values: Tensor) -> Tensor:
        column = self.columns[name]
        if column.like:
            return self.colors(values)[column.like]
        if values.dim() != 4 or values.shape[1] != (1 if column.classes else column.channels):
            raise UsageError(
                f"The view '{name}' must be (batch, {1 if column.classes else column.channels}, height, width), but has shape "
                f"{tuple(values.shape)}: set model.columns.{name}.channels to what it has."
            )
        return column(values)


def require_alike(sources: dict[str, Tensor]) -> None:
    """A `UsageError` for views of one batch that do not belong together."""
    first, *others = sources
    for name in others:
        for what, one, other in (
            ("samples", len(sources[first]), len(sources[name])),
            ("pixels", sources[first].shape[-2:], sources[name].shape[-2:]),
        ):
            if one != other:
                one, other = ("x".join(map(str, n)) if isinstance(n, tuple) else n for n in (one, other))
                raise UsageError(
                    f"The views '{first}' and '{name}' do not belong together, with {one} and {other} {what}: "
                    "give both for the same images, at one size."
                )


def view_pairs(views: Sequence[str], core_view: str | None = None) -> list[tuple[str, str]]:
    """Pairs of views in both directions: all of them (CMC's full graph, eq. 8), or those of a core view (eq. 7).

    Raises:
        UsageError: the core view is none of the views.

    >>> view_pairs(["L", "a", "b"], core_view="L")
    [('L', 'a'), ('L', 'b'), ('a', 'L'), ('b', 'L')]
    """
    if core_view is not None and core_view not in views:
        raise unknown_name("core_view", core_view, list(views))
    return [pair for pair in permutations(views, 2) if core_view is None or core_view in pair]


def stand_in(view: Tensor, present: Tensor) -> Tensor:
    """A view (B, C, H, W) with those samples that are not `present` (B,) replaced by others that are, in turn; zeros if none is.

    The loss leaves them out, but batch norm does not; and every process and every step does the same work, so that distributed
    training never waits for a layer that one process did not run.
    """
    turn = torch.arange(len(present), device=present.device)
    present_first = present.int().argsort(descending=True, stable=True)
    index = turn.where(present, present_first[turn % present.sum().clamp(min=1)])
    return view[index].where(present.any(), 0.0)
