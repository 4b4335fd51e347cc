"""Features: a frozen model and decoded images -> one feature matrix for each named layer, in one pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_infomax.models.encoder import flatten_layer
from hf_infomax.models.errors import UsageError, unknown_name
from hf_infomax.models.processes import world

#: Name of a precision -> what autocast computes in; None runs in the model's own type.
PRECISIONS = {"no": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def to_unit_range(pixels: Tensor) -> Tensor:
    """Images (N, 3, H, W), uint8 or floating point already in [0, 1] -> float32 in [0, 1].

    Raises:
        UsageError: the tensor is not a batch of RGB images, or holds integers other than uint8.
    """
    if pixels.dim() != 4 or pixels.shape[1] != 3:
        raise UsageError(f"Images must be RGB of shape (N, 3, H, W), not {tuple(pixels.shape)}: convert them first.")
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    if not pixels.is_floating_point():
        raise UsageError(f"Images must be uint8, or floating point in [0, 1], not {pixels.dtype}: convert them first.")
    return pixels.float()


def require_finite(**features: Tensor) -> None:
    """Refuse features with NaN or infinity by name: a diverged encoder, which every probe would answer with nonsense.

    Raises:
        UsageError: a tensor holds NaN or infinity.
    """
    for name, values in features.items():
        if not values.isfinite().all():
            raise UsageError(
                f"{name} holds NaN or infinite values: the encoder has diverged, use an earlier checkpoint."
            )


def location_and_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each feature (F,), and one over its deviation (F,), which is 0 for a feature that is the same everywhere.

    A feature that only rounding moves, by at most 1e-6 (1 + |mean|), is as good as constant; over its tiny deviation it would be
    noise at full size.

    >>> mean, scale = location_and_scale(torch.tensor([[0.0, 5.0], [4.0, 5.0]]))
    >>> mean.tolist(), scale.tolist()
    ([2.0, 5.0], [0.5, 0.0])
    """
    std, mean = torch.std_mean(features.float(), dim=0, correction=0)
    return mean, torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.inf).reciprocal()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and afterwards every module's own mode again: a frozen part stays frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def extract_features(
    model: nn.Module,
    pixels: Tensor,
    layers: Sequence[str] | None = None,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    precision: str | None = None,
    progress: bool = True,
    pool: str | int | None = None,
    share: bool = False,
) -> dict[str, Tensor]:
    """The features of all images at several layers of a frozen model, each image passing through it once.

    Args:
        model: has `feature_layers`, the names, and `layers(pixel_values)`, name -> map (B, C, h, w) or vector (B, D).
        pixels: (N, 3, H, W), uint8 or floating point in [0, 1]; mean and standard deviation are the model's business.
        layers: names to read; None: all of `model.feature_layers`.
        batch_size: images in one pass.
        device: where to compute; the model is moved there. None: where the model is.
        precision: "bf16" or "fp16" computes under autocast; None, "no" and "fp32" do not.
        progress: show a bar, which goes away when it is done.
        pool: how a map becomes a vector, see `hf_infomax.models.encoder.flatten_layer`.
        share: every process of the run makes this call with the same arguments, takes a contiguous part of the batches, and has
            the features of all in the end. The batches are those of one process, and so are the features, to the last bit on
            the same hardware. Without it a process computes all of them by itself, and need not have company.

    Returns:
        Name -> (N, F) float32, on the CPU, in the order of `layers`. What is not finite in them is refused by who reads them,
        see `require_finite`.

    Raises:
        UsageError: there is no such layer or precision, the images are not RGB, or there are none.

    `cached_features` keeps them on disk.

    >>> from hf_infomax import AutoModel  # doctest: +SKIP
    >>> features = extract_features(
    ...     AutoModel.from_pretrained("runs/dim/model"), pixels, ["conv", "y"]
    ... )  # doctest: +SKIP
    """
    names = choose_layers(model, layers)
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("precision", precision, tuple(PRECISIONS))
    if len(pixels) == 0:
        raise UsageError("There are no images to extract features from: choose a split that is not empty.")
    device = torch.device(next(model.parameters()).device if device is None else device)
    model.to(device)
    dtype = PRECISIONS.get(precision)
    batches = [slice(start, min(start + batch_size, len(pixels))) for start in range(0, len(pixels), batch_size)]
    rank, processes = world() if share else (0, 1)

    features: dict[str, Tensor] = {}
    with evaluation_mode(model), torch.inference_mode():
        own = _parts(batches, processes)[rank]
        for rows in tqdm(own, desc="features", unit="batch", leave=False, disable=not progress or rank > 0):
            images = to_unit_range(pixels[rows].to(device, non_blocking=True))
            with torch.autocast(device.type, dtype) if dtype else nullcontext():
                outputs = model.layers(images.to(memory_format=torch.channels_last))
            for name in names:
                vectors = flatten_layer(outputs[name], pool)  # (B, F)
                if name not in features:
                    features[name] = _allocate(len(pixels), vectors.shape[1])
                features[name][rows] = vectors
    return _exchange(features, names, batches, device) if processes > 1 else features


def choose_layers(model: nn.Module, layers: Sequence[str] | None) -> tuple[str, ...]:
    """The names asked for, or all of a model's where None are.

    Raises:
        UsageError: there is no such layer.
    """
    names = tuple(model.feature_layers) if layers is None else tuple(layers)
    for name in names:
        if name not in model.feature_layers:
            raise unknown_name("layer", name, tuple(model.feature_layers))
    return names


def _parts(batches: Sequence[slice], processes: int) -> list[list[slice]]:
    """The batches of each process: a run of them, of equal length or one more; the first process has one if there is any."""
    return [[batches[place] for place in part] for part in torch.arange(len(batches)).tensor_split(processes)]


def _exchange(
    features: dict[str, Tensor], names: Sequence[str], batches: Sequence[slice], device: torch.device
) -> dict[str, Tensor]:
    """Each process's own rows -> all rows on all, by way of `device`: some backends take tensors of a GPU alone."""
    # A process without a batch knows no sizes; the first always has one.
    sizes = torch.tensor([features[name].shape[1] if features else 0 for name in names], device=device)
    torch.distributed.broadcast(sizes, src=0)
    gathered = {}
    for name, size in zip(names, sizes.tolist(), strict=True):
        gathered[name] = features[name] if features else _allocate(batches[-1].stop, size)
        for owner, part in enumerate(_parts(batches, world()[1])):
            for rows in part:
                piece = gathered[name][rows].to(device)  # (B, F); on the CPU these are the rows themselves
                torch.distributed.broadcast(piece, src=owner)
                gathered[name][rows] = piece
    return gathered


@torch.inference_mode(False)
def _allocate(images: int, size: int) -> Tensor:
    """Room for all features at once, since joining batches would hold everything twice.

    Made outside of inference mode, whose tensors could not enter a later graph, such as an MLP probe's.
    """
    return torch.empty(images, size)


def pixel_features(pixels: Tensor) -> dict[str, Tensor]:
    """The images themselves as features, the baseline below which a representation has learned nothing.

    Returns:
        {"pixels": (N, 3*H*W) float32 in [0, 1]}, on the CPU.

    Raises:
        UsageError: the images are not RGB.

    >>> pixel_features(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))["pixels"].shape
    torch.Size([2, 48])
    """
    return {"pixels": to_unit_range(pixels.cpu()).flatten(1)}
