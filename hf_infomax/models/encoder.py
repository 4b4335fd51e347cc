"""Encoder: view -> named layers, from local maps (B, C, h, w) to a global vector (B, D), on any timm backbone."""

from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg_value
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones import default_cfgs
from .configuration_infomax import InfoMaxConfig
from .errors import UsageError, unknown_name

#: A map of at most this many values is flattened for a probe; a larger one is averaged over space, as the field does.
MAX_FLAT_FEATURES = 4096


def flatten_layer(layer: Tensor, pool: str | int | None = None) -> Tensor:
    """A named layer as one feature vector for each image, for probes and neighbours.

    Args:
        layer: a map (B, C, h, w) or a vector (B, D).
        pool: None flattens a map of at most 4,096 values and averages a larger one over space; "flatten" and "avg" say so
            outright; an integer g averages over a g x g grid first.

    Returns:
        (B, F) float32.

    Raises:
        UsageError: `pool` is none of these.

    >>> import torch
    >>> flatten_layer(torch.zeros(2, 256, 4, 4)).shape, flatten_layer(torch.zeros(2, 512, 7, 7)).shape
    (torch.Size([2, 4096]), torch.Size([2, 512]))
    """
    layer = layer.float()
    if layer.dim() == 2:
        return layer
    if pool is None:
        pool = "flatten" if layer[0].numel() <= MAX_FLAT_FEATURES else "avg"
    if pool == "flatten":
        return layer.flatten(1)
    if pool == "avg":
        return layer.mean(dim=(-2, -1))
    if isinstance(pool, int):
        return F.adaptive_avg_pool2d(layer, pool).flatten(1)
    raise UsageError(f"Unknown pool '{pool}': choose 'flatten', 'avg', the side of a grid, or none for the default.")


def locations(features: Tensor) -> Tensor:
    """A map (B, C, h, w) as the features of its locations (B, h*w, C)."""
    return features.flatten(2).transpose(1, 2)


def create_backbone(name: str, in_channels: int, image_size: int, **kwargs: Any) -> nn.Module:
    """The timm model of that name without its classifier, for square images of that many channels.

    Raises:
        UsageError: timm knows no such name, or its options do not fit.
    """
    if not timm.is_model(name):
        raise unknown_name("backbone", name, [*default_cfgs, *timm.list_models()])
    if get_pretrained_cfg_value(name, "fixed_input_size"):
        kwargs = {"img_size": image_size} | kwargs
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, in_chans=in_channels, **kwargs)
    except TypeError as error:
        raise UsageError(f"Backbone '{name}' does not accept backbone_kwargs {kwargs}: {error}.") from error


class Encoder(nn.Module):
    """One view's encoder f: a timm backbone read by layer name, and a linear layer to the representation y.

    The names, in order: the backbone's stages by timm's own names, of which the last is called `conv`; the vector before the
    classifier, called `fc` where the backbone has fully connected hidden layers and `pool` where it only pools the last map;
    and `y`, the representation of `representation_size` units, unless that is None.

    Args:
        backbone: a timm name, the papers' small encoders included (`dim_dcgan`, `resnet18_cifar`, ...).
        in_channels: channels of the view.
        image_size: side of the square view in pixels.
        representation_size: D, the size of y; None leaves the backbone's own vector as the global one.
        backbone_kwargs: further options of the timm model.

    Raises:
        UsageError: the backbone is unknown, or cannot give its intermediate maps.

    >>> import torch
    >>> encoder = Encoder("dim_dcgan", in_channels=3, image_size=32, representation_size=64)
    >>> {name: tuple(layer.shape[1:]) for name, layer in encoder(torch.rand(2, 3, 32, 32)).items()}
    {'conv1': (64, 16, 16), 'conv2': (128, 8, 8), 'conv': (256, 4, 4), 'fc': (1024,), 'y': (64,)}
    """

    def __init__(
        self,
        backbone: str,
        in_channels: int,
        image_size: int,
        representation_size: int | None = None,
        backbone_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.backbone = create_backbone(backbone, in_channels, image_size, **(backbone_kwargs or {}))
        if not hasattr(self.backbone, "forward_intermediates"):
            raise UsageError(f"Backbone '{backbone}' gives no intermediate maps in timm: choose another one.")
        # timm tells hidden layers by their size; ours may be as wide as the last map, and says so itself.
        widened = self.backbone.head_hidden_size != self.backbone.num_features
        self.vector_name = "fc" if widened or getattr(self.backbone, "hidden_sizes", ()) else "pool"
        self.y = nn.Linear(self.backbone.head_hidden_size, representation_size) if representation_size else None
        self.image_size = image_size
        self.fixed_size = bool(get_pretrained_cfg_value(backbone, "fixed_input_size"))
        self.shapes = self._trace(backbone, in_channels, image_size, backbone_kwargs or {})

    def _trace(
        self, backbone: str, in_channels: int, image_size: int, kwargs: dict[str, Any]
    ) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every layer, without the batch, by a forward pass on the meta device, which computes nothing."""
        with torch.device("meta"), torch.no_grad():
            twin = create_backbone(backbone, in_channels, image_size, **kwargs).eval()
            try:
                layers = self._layers(twin, torch.empty(1, in_channels, image_size, image_size))
            except RuntimeError as error:
                raise UsageError(
                    f"Images of {image_size} pixels are too small for backbone '{backbone}': set a larger image_size."
                ) from error
        shapes = {name: tuple(layer.shape[1:]) for name, layer in layers.items()}
        if self.y is not None:
            shapes["y"] = (self.y.out_features,)
        return shapes

    def _layers(self, backbone: nn.Module, view: Tensor) -> dict[str, Tensor]:
        final, maps = backbone.forward_intermediates(view, norm=True, output_fmt="NCHW")
        names = [info["module"] for info in backbone.feature_info]
        if len(names) != len(maps):
            names = [f"stage{index + 1}" for index in range(len(maps))]
        layers = dict(zip([*names[:-1], "conv"], maps, strict=True))
        layers[self.vector_name] = backbone.forward_head(final, pre_logits=True)
        return layers

    def forward(self, view: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) -> every named layer, maps (B, C', h, w) first, the global vector (B, D) last.

        Raises:
            UsageError: the backbone takes images of `image_size` alone, and these have another.
        """
        if self.fixed_size and view.shape[-2:] != (self.image_size, self.image_size):
            raise UsageError(
                f"The encoder takes images of {self.image_size}x{self.image_size} pixels, not "
                f"{view.shape[-2]}x{view.shape[-1]}: resize them, by the checkpoint's image processor for instance."
            )
        layers = self._layers(self.backbone, view)
        if self.y is not None:
            layers["y"] = self.y(layers[self.vector_name])
        return layers


class StridedCrops(nn.Module):
    """An encoder that sees overlapping patches of a view one by one (CMC, C.1, after CPC): no feature knows its neighbours.

    Every layer of the encoder comes back as if of the whole view: a map is averaged over each patch and laid out on the grid of
    patches, a vector averaged over the patches. The vectors themselves, before the average, are the map `patches`.

    Args:
        encoder: of patches of `encoder.image_size` pixels.
        image_size: side of the view in pixels.
        stride: pixels from a patch to the next one; 16-pixel patches with a stride of 8 overlap by 8.

    Raises:
        UsageError: the patches do not fill the view.

    >>> import torch
    >>> crops = StridedCrops(Encoder("dim_dcgan", 1, image_size=16, representation_size=64), image_size=64, stride=8)
    >>> crops.shapes["conv"], crops.shapes["patches"], crops(torch.rand(2, 1, 64, 64))["y"].shape
    ((256, 7, 7), (64, 7, 7), torch.Size([2, 64]))
    """

    def __init__(self, encoder: Encoder, image_size: int, stride: int):
        super().__init__()
        self.encoder = encoder
        self.image_size, self.patch_size, self.stride = image_size, encoder.image_size, stride
        if stride < 1 or self.patch_size > image_size or (image_size - self.patch_size) % stride:
            raise UsageError(
                f"Patches of {self.patch_size} pixels every {stride} do not fill an image of {image_size}: choose patch_size and "
                "patch_stride so that image_size - patch_size is a multiple of patch_stride."
            )
        grid = (image_size - self.patch_size) // stride + 1
        self.vector_name = list(encoder.shapes)[-1]
        maps = {name: (shape[0], grid, grid) for name, shape in encoder.shapes.items() if len(shape) == 3}
        vectors = {name: shape for name, shape in encoder.shapes.items() if len(shape) == 1}
        self.shapes = {**maps, "patches": (vectors[self.vector_name][0], grid, grid), **vectors}

    def forward(self, view: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) -> every named layer, maps (B, C', n, n) first, the global vector (B, D) last.

        Raises:
            UsageError: the view is smaller than a patch.
        """
        if min(view.shape[-2:]) < self.patch_size:
            raise UsageError(
                f"A view of {view.shape[-2]}x{view.shape[-1]} pixels has no patch of {self.patch_size}: use larger images."
            )
        patches = view.unfold(2, self.patch_size, self.stride).unfold(
            3, self.patch_size, self.stride
        )  # (B, C, n, n, p, p)
        batch, _, *grid = patches.shape[:4]
        layers = self.encoder(patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))  # (B * n * n, ...)

        def on_grid(layer: Tensor) -> Tensor:
            return layer.unflatten(0, (batch, *grid)).movedim(-1, 1)  # (B, C', n, n)

        maps = {name: on_grid(layer.mean(dim=(-2, -1))) for name, layer in layers.items() if layer.dim() == 4}
        vectors = {
            name: layer.unflatten(0, (batch, -1)).mean(dim=1) for name, layer in layers.items() if layer.dim() == 2
        }
        return {**maps, "patches": on_grid(layers[self.vector_name]), **vectors}


def build_encoder(config: InfoMaxConfig, in_channels: int) -> Encoder | StridedCrops:
    """The encoder of a view of so many channels, as a configuration describes it."""
    side = config.patch_size or config.image_size
    encoder = Encoder(config.backbone, in_channels, side, config.representation_size, config.backbone_kwargs)
    if config.patch_size is None:
        return encoder
    return StridedCrops(encoder, config.image_size, config.patch_stride or config.patch_size // 2)
