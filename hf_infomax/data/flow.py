"""Optical flow between the frames of clips, computed once, in the cache of the decoded images.

TV-L1 (Zach, Pock and Bischof, 2007) minimises lambda |I_1(x + w) - I_0(x)| + |grad w| over the field w. A field of 64x64
pixels takes 40 ms of a core, one of 224x224 0.4 s. Two processes were measured to be 1.6 times as fast as one; two threads
slower than one at 64x64, for Python's lock, and 1.3 times as fast at 224x224: hence processes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from hf_infomax.models.errors import UsageError

from .cache import Source, Writer, in_memory, key_of, on_disk
from .clips import Clips
from .stores import VariableImages, take

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255  # of uint8 RGB, in [0, 1]
_PIXELS_A_PROCESS = 200_000  # of frames: 2 seconds' work, below which another process does not pay
_MOST_PROCESSES = 16

DTYPE = np.dtype(np.float16)  # to a thousandth of a displacement


@dataclass(frozen=True)
class TVL1:
    """Parameters of scikit-image's `optical_flow_tvl1`, whose other ones are its defaults.

    Fewer warps or iterations were measured to cost accuracy more than time on scenes of known translation: 3 warps in
    place of 5 take 0.6 of the time and give 2.7 times the error.

    Attributes:
        attachment: lambda, for greys in [0, 1]; IPOL's 0.15 (Sanchez et al., 2013) is for greys up to 255.
        warps: times that the second frame is warped on every level of the pyramid.
        iterations: of each warp.
    """

    attachment: float = 38.0
    warps: int = 5
    iterations: int = 10

    def __call__(self, frame: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Two greys (h, w) float32 -> (2, h, w) float32: u to the right and v down, in pixels, from `frame` on."""
        down, right = _solver()(
            frame, following, attachment=self.attachment, num_warp=self.warps, num_iter=self.iterations
        )
        return np.stack([right, down])


def optical_flow(
    images: Tensor | VariableImages, clips: Clips, method: TVL1 = TVL1(), *, progress: bool = True
) -> Tensor | VariableImages:
    """The flow from each frame to the next of its sequence: N fields (2, H, W) float16, u (right) and v (down) in pixels.

    The pixel x of frame t is at x + w(x) in the next one. Frames without a next one have zeros; `Clips.flow` never reads
    these. Fields of images in the cache lie there too, keyed by the images' key, the sequences and the parameters: the
    next call, in any process, opens what this one wrote. Those of images in memory stay in memory. The work is shared
    out to a process for each core.

    Args:
        images: N frames (3, H, W) uint8, as `decode_images` gives them.
        clips: their sequences.
        method: parameters.
        progress: show a progress bar while fields are computed.

    Raises:
        UsageError: frames of a sequence that differ in size, no scikit-image, a full disk or a cache folder that cannot
            be written.

    Example:
        >>> frames = load_dataset("hf_infomax/scenes", "train[:32]", config="clips")
        >>> decoded = decode_images(frames, "image", image_size=64)
        >>> clips = Clips(frames["sequence"], decoded.indices)
        >>> optical_flow(decoded.pixels, clips).shape
        torch.Size([32, 2, 64, 64])
    """
    clips.check_sizes(images)
    every = torch.arange(len(clips))
    following = torch.where(clips.has([1]), clips.rows(every, [1])[:, 0], every)  # (N,), itself where there is none
    pixels = images[:, 0].numel() if isinstance(images, Tensor) else int(images.sizes.prod(1).sum())
    processes = min(_cores(), pixels // _PIXELS_A_PROCESS, _MOST_PROCESSES)
    fill = partial(_fill, fields=_Fields(images, following, method), processes=processes, progress=progress)
    source = Source(fill, 2, DTYPE, len(images), 2 * pixels * DTYPE.itemsize)
    path = getattr(images, "path", None)
    if path is None:
        return in_memory(source).images()
    digest = hashlib.sha256(following.numpy().tobytes()).hexdigest()
    return on_disk(key_of(flow=asdict(method), images=path.name, following=digest), source).images()


class _Fields(Dataset[Tensor]):
    """The fields, computed when they are asked for; a dataset, since a `DataLoader` shares it out to processes in order."""

    def __init__(self, images: Tensor | VariableImages, following: Tensor, method: TVL1) -> None:
        self.images, self.following, self.method = images, following, method

    def __len__(self) -> int:
        return len(self.following)

    def __getitem__(self, row: int) -> Tensor:
        """(2, h, w) of one image, zeros where none follows."""
        frames = take(self.images, torch.tensor([row, self.following[row]]))  # (2, 3, h, w)
        if not self.leads_on(row):
            return torch.zeros(2, *frames.shape[-2:], dtype=torch.float16)
        greys = np.tensordot(frames.numpy(), _GREY, axes=(1, 0))  # (2, h, w)
        return torch.from_numpy(self.method(*greys).astype(DTYPE))

    def leads_on(self, row: int) -> bool:
        """Whether there is a next frame."""
        return bool(self.following[row] != row)


def _fill(writer: Writer, fields: _Fields, processes: int, progress: bool) -> dict[str, Any]:
    _solver()  # where it is missing, the user hears of it from this process
    # A generator of its own: to draw the workers' seed from torch's would make a run depend on whether the cache was there.
    workers = processes if processes > 1 else 0
    loader = DataLoader(fields, batch_size=None, num_workers=workers, generator=torch.Generator())
    for row, field in enumerate(tqdm(loader, desc="optical flow", unit="field", leave=False, disable=not progress)):
        size = tuple(field.shape[1:]) if fields.leads_on(row) else (0, 0)
        writer.append(field.numpy(), row, size)
    return {}


def _solver() -> Callable[..., np.ndarray]:
    try:
        from skimage.registration import optical_flow_tvl1
    except ImportError as error:
        raise UsageError(
            "optical flow needs scikit-image, which is not installed: pip install scikit-image, or hf-infomax[train]."
        ) from error
    return optical_flow_tvl1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
