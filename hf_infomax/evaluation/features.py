"""Features: a frozen model and decoded images -> one feature matrix for each named layer, in one pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_infomax.models.encoder import flatten_layer
from hf_infomax.models.errors import UsageError, unknown_name

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

    Returns:
        Name -> (N, F) float32, on the CPU, in the order of `layers`.

    Raises:
        UsageError: there is no such layer or precision, or the images are not RGB.

    >>> from hf_infomax import AutoModel  # doctest: +SKIP
    >>> features = extract_features(
    ...     AutoModel.from_pretrained("runs/dim/model"), pixels, ["conv", "y"]
    ... )  # doctest: +SKIP
    """
    names = tuple(model.feature_layers) if layers is None else tuple(layers)
    for name in names:
        if name not in model.feature_layers:
            raise unknown_name("layer", name, tuple(model.feature_layers))
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("precision", precision, tuple(PRECISIONS))
    if len(pixels) == 0:
        raise UsageError("There are no images to extract features from: choose a split that is not empty.")
    if device is None:
        device = next(model.parameters()).device
    device = torch.device(device)
    model.to(device)
    dtype = PRECISIONS.get(precision)

    features: dict[str, Tensor] = {}
    starts = tqdm(range(0, len(pixels), batch_size), desc="features", unit="batch", leave=False, disable=not progress)
    with evaluation_mode(model), torch.inference_mode():
        for start in starts:
            batch = to_unit_range(pixels[start : start + batch_size].to(device, non_blocking=True))
            with torch.autocast(device.type, dtype) if dtype else nullcontext():
                outputs = model.layers(batch.to(memory_format=torch.channels_last))
            for name in names:
                vectors = flatten_layer(outputs[name], pool)  # (B, F)
                if name not in features:
                    features[name] = _allocate(len(pixels), vectors.shape[1])
                features[name][start : start + len(vectors)] = vectors
    return features


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
