"""Frames of clips: which rows of a dataset come before and after a row, in the sequence that it belongs to.

A dataset of video frames is rows with a column that says of which sequence each is, in temporal order within a sequence;
rows of several sequences may be mixed. Nothing is copied: a column of later frames is the same images, read at other rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_infomax.models.errors import UsageError

from .stores import VariableImages, take


class Clips:
    """The sequences of N images.

    An image that was skipped leaves a gap: what comes after it does not move up, so that a step is always as much time.

    Args:
        sequences: of every row of the dataset, M of them, the sequence that it belongs to; any value that can be hashed.
        rows: (N,) int64, the row of each image, as in `DecodedImages.indices`; None where every row has one.

    Example:
        >>> clips = Clips(["a", "a", "b", "a"])
        >>> clips.has([1])  # whether there is a next frame
        tensor([ True,  True, False, False])
        >>> clips.rows(torch.tensor([0, 1]), [1])
        tensor([[1],
                [3]])
    """

    def __init__(self, sequences: Iterable[Hashable], rows: Tensor | None = None) -> None:
        numbers: dict[Hashable, int] = {}
        number = torch.tensor(
            [numbers.setdefault(value, len(numbers)) for value in sequences], dtype=torch.int64
        )  # (M,)
        rows = torch.arange(len(number)) if rows is None else rows
        images = torch.full_like(number, -1)
        images[rows] = torch.arange(len(rows))
        order = number.argsort(stable=True)  # (M,): the rows of a sequence side by side
        self._sequence = number[order]  # (M,), of each place in that order
        self._image = images[order]  # (M,), at each place; -1 where there is none
        self._place = order.argsort()[rows]  # (N,), of each image

    def __len__(self) -> int:
        return len(self._place)

    @property
    def longest(self) -> int:
        """Rows of the longest sequence."""
        return int(self._sequence.bincount().max())

    def has(self, offsets: Iterable[int]) -> Tensor:
        """(N,) bool: whether an image's sequence has an image at each of these places after it (before it, if negative)."""
        found = torch.ones(len(self), dtype=torch.bool)
        for offset in offsets:
            place = self._place + offset
            inside = place.clamp(0, len(self._image) - 1)
            found &= (
                (place == inside) & (self._sequence[inside] == self._sequence[self._place]) & (self._image[inside] >= 0)
            )
        return found

    def rows(self, index: Tensor, offsets: Sequence[int]) -> Tensor:
        """(B, K) int64: the images at K places after those at `index` (B,); without meaning where `has` is False."""
        place = self._place[index, None] + torch.tensor(offsets)
        return self._image[place.clamp_(0, len(self._image) - 1)]

    def frames(self, images: Tensor | VariableImages, step: int) -> Window:
        """The images `step` rows later (earlier, if negative) in their sequences, as a column: (B, C, H, W) of a batch.

        Raises:
            UsageError: a step of 0, a step beyond the ends of all sequences, or frames of a sequence that differ in size.

        Example:
            >>> pixels = torch.arange(3 * 8 * 8).view(3, 1, 8, 8)
            >>> column = Clips(["a", "a", "b"]).frames(pixels, step=1)
            >>> column.present
            tensor([ True, False, False])
            >>> torch.equal(column.batch(torch.tensor([0])), pixels[1:2])
            True
        """
        if step == 0:
            raise UsageError("a frame 0 rows later is the image itself: give a step other than 0 (data.frames).")
        present = self.has([step])
        if not present.any():
            raise UsageError(
                f"no image has one {abs(step)} rows {'later' if step > 0 else 'earlier'} in its sequence, the longest of "
                f"which has {self.longest}: take a smaller step (data.frames), or check data.sequence_column."
            )
        self.check_sizes(images)
        return Window(images, self, (step,), present)

    def flow(self, fields: Tensor | VariableImages, length: int) -> Window:
        """`length` consecutive fields of optical flow, centred at each image: (B, 2 length, H, W) of a batch.

        Those of the rows t - length/2 ... t + length/2 - 1, which lead from frame t - length/2 to frame t + length/2 (an odd
        number has one more after t than before), stacked as u, v, u, v, ...: CMC's f_t has 10 (Tian et al., 2020, 4.2).

        Args:
            fields: (N, 2, H, W), row t leads from frame t to the next; see `flow.optical_flow`.
            length: number of fields.

        Raises:
            UsageError: as `around`.
        """
        return Window(fields, self, *self.around(length))

    def around(self, length: int) -> tuple[tuple[int, ...], Tensor]:
        """The offsets of `length` fields of flow around an image, and (N,) bool: whether all are there.

        Raises:
            UsageError: a length below 1, or one that no sequence has frames enough for.
        """
        if length < 1:
            raise UsageError(f"a stack of {length} fields of flow is none: give a number from 1 on (data.flow).")
        start, end = -(length // 2), length - length // 2
        present = self.has(range(start, end + 1))
        if not present.any():
            raise UsageError(
                f"{length} fields of flow need {length + 1} frames one after the other and the longest sequence has "
                f"{self.longest} rows: take fewer (data.flow), or check data.sequence_column."
            )
        return tuple(range(start, end)), present

    def check_sizes(self, images: Tensor | VariableImages) -> None:
        """A `UsageError` where the images of a sequence differ in size."""
        if isinstance(images, Tensor):
            return
        there = self._image >= 0
        image, sequence = self._image[there], self._sequence[there]  # (N,), the images of a sequence side by side
        sizes = images.sizes[image]
        differ = (sizes[1:] != sizes[:-1]).any(1) & (sequence[1:] == sequence[:-1])
        if differ.any():
            place = int(differ.nonzero()[0])
            one, other = ("x".join(map(str, sizes[at].tolist())) for at in (place, place + 1))
            raise UsageError(
                f"the frames of a sequence are {one} (image {int(image[place])}) and {other} pixels: bring those of one "
                "sequence to one size, or decode squares (data.shorter_side=null)."
            )


@dataclass(frozen=True)
class Window:
    """A column made of images (or of fields of flow) near each image in its sequence, stacked along their channels.

    Attributes:
        images: N, of C channels; those of the dataset itself, or a store beside it.
        clips: their sequences.
        offsets: K places after each image.
        present: (N,) bool, whether all of them are there; where not, the column has the image itself K times.
    """

    images: Tensor | VariableImages
    clips: Clips
    offsets: tuple[int, ...]
    present: Tensor

    def __len__(self) -> int:
        return len(self.present)

    def batch(self, index: Tensor, least: tuple[int, int] = (0, 0)) -> Tensor:
        """Of the images at `index` (B,): (B, K C, H, W), padded as `VariableImages` are."""
        rows = self.clips.rows(index, self.offsets)  # (B, K)
        rows = torch.where(self.present[index, None], rows, index[:, None])
        stacked = take(self.images, rows.flatten(), least)  # (B K, C, H, W)
        return stacked.unflatten(0, rows.shape).flatten(1, 2)
