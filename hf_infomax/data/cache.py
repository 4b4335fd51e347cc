"""The image cache: a store of decoded images, or of what is computed of them, is built once and opened by every process.

Stores lie in `$HF_INFOMAX_CACHE`, else `<HF_HOME>/hf_infomax/images`, each in a folder named by a key of all that it
depends on. One is built under another name beside, synced, and renamed when it is whole, under a file lock: of two
processes that need it, one builds and the other waits and opens. What a killed process leaves is removed by the next
that builds. Nothing else is ever deleted: a store that is no longer wanted is a folder to remove by hand.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from huggingface_hub import constants

from hf_infomax.models.errors import UsageError

from .stores import META, PIXELS, TABLE, ImageStore, open_store

FORMAT = 1  # of the files; another one is another key

_BLOCK = 4 << 20  # bytes held back before a write
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Writer:
    """Takes decoded images one after the other; holds a small block of them, and 20 bytes for each.

    Args:
        file: opened for binary writing, unbuffered where it is a real file.
        channels, dtype: of the images.
        total: images expected, by which the space needed is estimated.
    """

    def __init__(self, file: BinaryIO, channels: int, dtype: np.dtype, total: int) -> None:
        self.file, self.channels, self.total = file, channels, total
        self._begin(dtype)

    def _begin(self, dtype: np.dtype) -> None:
        self.dtype = np.dtype(dtype)
        self._table = array("i")
        self._block: list[bytes] = []
        self._held = self._bytes = 0

    def append(self, image: np.ndarray, row: int, original_size: tuple[int, int]) -> None:
        """Add (channels, h, w), its row of the dataset, and its height and width before it was resized."""
        self._table.extend((row, *image.shape[1:], *original_size))
        self._block.append(image.astype(self.dtype, copy=False).tobytes())
        self._held += len(self._block[-1])
        self._bytes += len(self._block[-1])
        if self._held >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        _write(self.file, b"".join(self._block))
        self._block, self._held = [], 0

    def restart(self, dtype: np.dtype) -> None:
        """Forget all images so far; those to come are of another type."""
        self.file.seek(0)
        self.file.truncate()
        self._begin(dtype)

    def bytes_needed(self) -> int:
        """Of all images together, if those to come are like those so far."""
        written = max(len(self._table) // 5, 1)
        return self._bytes * max(self.total, written) // written

    def table(self) -> np.ndarray:
        """(N, 5) int32, see `ImageStore.table`."""
        return np.array(self._table, dtype=np.int32).reshape(-1, 5)


@dataclass(frozen=True)
class Source:
    """What a store is made of.

    Attributes:
        fill: writes every image into a `Writer` and returns notes, plain data that the store keeps.
        channels, dtype, total: as in `Writer`.
        least_bytes: what the images will take where it is known; asked of the disk before anything is decoded.
    """

    fill: Callable[[Writer], dict[str, Any]]
    channels: int
    dtype: np.dtype
    total: int
    least_bytes: int = 0

    def writer(self, file: BinaryIO) -> Writer:
        return Writer(file, self.channels, self.dtype, self.total)


def cache_folder() -> Path:
    """Where the stores are: `$HF_INFOMAX_CACHE`, else `<HF_HOME>/hf_infomax/images`."""
    folder = os.environ.get("HF_INFOMAX_CACHE") or Path(constants.HF_HOME, "hf_infomax", "images")
    return Path(folder).expanduser().absolute()


def key_of(**settings: Any) -> str:
    """The name of a store: of all that its content depends on, each of it plain data."""
    described = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:32]


def in_memory(source: Source) -> ImageStore:
    """A store without a folder, for a small set that is used once."""
    file = BytesIO()
    writer = source.writer(file)
    notes = source.fill(writer)
    writer.flush()
    return ImageStore(np.frombuffer(file.getbuffer(), dtype=writer.dtype), writer.table(), source.channels, notes)


def on_disk(key: str, source: Source) -> ImageStore:
    """The store of that key: opened where it is whole, else built.

    Raises:
        UsageError: the disk is full or the folder cannot be written; nothing of the attempt is left then.
    """
    folder = cache_folder()
    if (store := open_store(folder / key)) is not None:
        return store
    with _lock(folder, key):
        if (store := open_store(folder / key)) is None:  # else another process has built it meanwhile
            _remove_debris(folder, key)
            _build(folder, key, source)
            store = open_store(folder / key)
    if store is None:
        raise UsageError(f"the image cache '{folder}' loses what is written into it: set HF_INFOMAX_CACHE.")
    return store


def _build(folder: Path, key: str, source: Source) -> None:
    partial, final = _partial(folder, key), folder / key
    writer = None
    try:
        if _free(folder) < source.least_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        partial.mkdir()
        with open(partial / PIXELS, "xb", buffering=0) as file:
            writer = source.writer(file)
            notes = source.fill(writer)
            writer.flush()
            os.fsync(file.fileno())
        _write_synced(partial / TABLE, writer.table().tobytes())
        sizes = {name: (partial / name).stat().st_size for name in (PIXELS, TABLE)}
        meta = {"bytes": sizes, "dtype": writer.dtype.name, "channels": source.channels, "notes": notes}
        _write_synced(partial / META, json.dumps(meta, indent=1).encode())
        _sync_folder(partial)
        if final.exists():  # damaged, or it would have been opened
            shutil.rmtree(final)
        partial.rename(final)
        _sync_folder(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            needed = max(source.least_bytes, writer.bytes_needed() if writer else 0)
            raise _disk_error(folder, error, needed) from error
        raise


@contextmanager
def _lock(folder: Path, key: str) -> Iterator[None]:
    lock = _file_lock(folder, key)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _disk_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _file_lock(folder: Path, key: str) -> FileLock:
    return FileLock(folder / ".locks" / f"{key}.lock")


def _partial(folder: Path, key: str) -> Path:
    return folder / f"{key}.partial"


def _remove_debris(folder: Path, key: str) -> None:
    """Remove what killed processes left: the half-built store of this key, whose lock we hold, and of any free lock."""
    shutil.rmtree(_partial(folder, key), ignore_errors=True)
    for partial in folder.glob("*.partial"):
        with suppress(Timeout, OSError), _file_lock(folder, partial.stem).acquire(timeout=0):
            shutil.rmtree(partial, ignore_errors=True)


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of it: an unbuffered file may take a part, and tells of a full disk here and not when it is closed."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "xb", buffering=0) as file:
        _write(file, data)
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":  # no other system opens a folder
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _free(folder: Path) -> int:
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _disk_error(folder: Path, error: OSError, needed: int = 0) -> UsageError:
    """The sentence for a disk that is full, or a folder that cannot be written."""
    if error.errno not in _FULL:
        return UsageError(
            f"the image cache '{folder}' cannot be written ({error.strerror or error}): "
            "set HF_INFOMAX_CACHE to a folder that can, or data.streaming=true, which keeps no cache."
        )
    return UsageError(
        f"the image cache needs about {needed / 1e6:,.1f} MB in '{folder}', where {_free(folder) / 1e6:,.1f} MB are free "
        f"({error.strerror}): set HF_INFOMAX_CACHE to a folder with more room, or data.streaming=true, which keeps none."
    )
