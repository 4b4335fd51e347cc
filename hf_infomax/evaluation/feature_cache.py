"""Features on disk: what a checkpoint makes of a dataset is computed once, and mapped into memory from then on.

They lie in the folder `features` of the image cache (`$HF_INFOMAX_CACHE`, else `<HF_HOME>/hf_infomax/images`), one file for each
layer, named by a key of all that the features depend on. Nothing there is ever deleted: to clear it, remove that folder.
"""

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hf_infomax.data.cache import cache_folder, key_of
from hf_infomax.models.encoder import MAX_FLAT_FEATURES
from hf_infomax.models.processes import total

from .features import choose_layers, extract_features

FORMAT = 1  # of the files, and of how features are computed; another one is another key

_NAME = "features"  # of the one tensor in a file
_ALIGNMENT = 64  # bytes; where a tensor begins elsewhere, some CPU kernels sum in another order

#: Fields of a configuration that a model computes nothing from.
_INCIDENTAL = ("_name_or_path", "architectures", "auto_map", "transformers_version")

logger = logging.getLogger(__name__)


def fingerprint(tensor: Tensor) -> str:
    """A hash of a tensor's values, type and shape.

    >>> pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    >>> fingerprint(pixels) == fingerprint(pixels.clone()), fingerprint(pixels) == fingerprint(pixels + 1)
    (True, False)
    """
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    values = tensor.detach().cpu().contiguous()
    digest.update(values.reshape(-1).view(torch.uint8).numpy())  # the bytes: NumPy has no bfloat16
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """A hash of what a model computes: its weights, its modules and its configuration, but not where it was loaded from.

    >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> same = model_fingerprint(first) == model_fingerprint(second)
    >>> _ = second.load_state_dict(first.state_dict())
    >>> same, model_fingerprint(first) == model_fingerprint(second)
    (False, True)
    """
    config = getattr(model, "config", None)
    described = _content(config.to_dict()) if hasattr(config, "to_dict") else repr(config)
    weights = {name: fingerprint(tensor) for name, tensor in model.state_dict().items()}
    text = json.dumps([type(model).__qualname__, repr(model), described, weights], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what tells of its file, and of configurations in it alike."""
    return {
        name: _content(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in _INCIDENTAL
    }


def cached_features(
    model: nn.Module,
    pixels: Tensor,
    layers: Sequence[str] | None = None,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    precision: str | None = None,
    progress: bool = True,
    pool: str | int | None = None,
    share: bool = False,
    cache: bool = True,
) -> dict[str, Tensor]:
    """`extract_features`, of which every layer is kept on disk and read from there the next time.

    The key of a layer is made of the model's weights and configuration, the images' values, the layer's name, `pool`, `precision`,
    the type of device, and the versions of torch, timm and transformers; `batch_size`, which moves features by rounding alone, is
    not in it. One layer more than the last time costs a pass for that one. A file that is cut short or whose checksum does not
    fit is made anew. Two runs that need the same at the same moment both compute it, and one of them writes. Where the disk is
    full, or the folder cannot be written, a warning says so and nothing is kept. HF_INFOMAX_CACHE moves the cache, whose size
    nothing limits; it is cleared by removing its folder `features`.

    Args:
        model, pixels, layers, batch_size, device, precision, progress, pool, share: as in `extract_features`.
        cache: False neither reads nor writes.

    Returns:
        Name -> (N, F) float32 on the CPU, in the order of `layers`. What was on disk is mapped copy-on-write: it takes memory as
        it is read, and what is written into it stays in this process.

    Raises:
        UsageError: as `extract_features`.

    >>> from hf_infomax import DIMConfig, DIMModel  # doctest: +SKIP
    >>> cached_features(DIMModel(DIMConfig()), pixels, ["conv", "y"])  # doctest: +SKIP
    """
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "precision": precision, "share": share}
    options |= {"progress": progress, "pool": pool}
    names = choose_layers(model, layers)
    if not cache or len(pixels) == 0:
        return extract_features(model, pixels, names, **options)
    target = torch.device(next(model.parameters()).device if device is None else device)
    paths = _paths(model, pixels, names, {"precision": precision, "pool": pool, "device": target.type})
    found = {name: _open(path, len(pixels)) for name, path in paths.items()}
    missing = torch.tensor([features is None for features in found.values()], dtype=torch.int64, device=target)
    if share:  # all take part in computing what any of them cannot read
        missing = total(missing)
    wanted = [name for name, absent in zip(paths, missing.tolist(), strict=True) if absent]
    computed = extract_features(model, pixels, wanted, **options) if wanted else {}
    for name, features in computed.items():
        if found[name] is None:
            _keep(paths[name], features)
    return {name: computed.get(name, features) for name, features in found.items()}


def _paths(model: nn.Module, pixels: Tensor, names: Sequence[str], settings: dict[str, Any]) -> dict[str, Path]:
    """Name -> the file of that layer."""
    settings = settings | {
        "features": FORMAT,
        "flat": MAX_FLAT_FEATURES,
        "model": model_fingerprint(model),
        "pixels": fingerprint(pixels),
        "versions": [torch.__version__, timm.__version__, transformers.__version__],
    }
    folder = cache_folder() / "features"
    return {name: folder / f"{key_of(layer=name, **settings)}.safetensors" for name in names}


def _open(path: Path, images: int) -> Tensor | None:
    """The features in a file, mapped; None where there is none, or one that is not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            features, stated = file.get_tensor(_NAME), file.metadata()["crc32"]
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    if features.dim() != 2 or len(features) != images or str(_checksum(features)) != stated:
        return None
    return features


def _checksum(features: Tensor) -> int:
    return zlib.crc32(features.reshape(-1).view(torch.uint8).numpy())


def _keep(path: Path, features: Tensor) -> None:
    """Write features under another name and rename them when they are whole; a disk that refuses costs a warning."""
    partial = path.with_suffix(".partial")
    try:
        (path.parent / ".locks").mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".locks" / f"{path.stem}.lock"):
            if _open(path, len(features)) is not None:  # another process has written it meanwhile
                return
            try:
                with partial.open("wb") as file:  # over what a killed process has left
                    file.write(_header(features))
                    file.write(features.contiguous().numpy())
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("Features are not kept: '%s' cannot be written (%s).", path.parent, error.strerror or error)


def _header(features: Tensor) -> bytes:
    """What a safetensors file begins with, padded so that the tensor begins at a multiple of 64 bytes; the library's own is not."""
    described = {"dtype": "F32", "shape": list(features.shape), "data_offsets": [0, features.nbytes]}
    text = json.dumps({"__metadata__": {"crc32": str(_checksum(features))}, _NAME: described}).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
