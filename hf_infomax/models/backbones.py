"""The papers' small encoders as timm models, beside timm's own.

| name | input | last map | vector before the classifier | source |
|---|---|---|---|---|
| `dim_dcgan` | 32x32 | 4x4x256 | fc 1024 | Deep InfoMax A.1, the CIFAR encoder |
| `dcgan_pooled` | 32x32, or any | 4x4x256 | fc 1024, of the averaged map | the same where images have several sizes, as pieces |
| `dim_alexnet` | 64x64 | 7x7x192 | fc 4096, 4096 | Deep InfoMax A.1, Tiny ImageNet and STL-10 |
| `cmc_alexnet` | 224x224 | 6x6x128 | fc 2048, 2048 | CMC Table 9, half of AlexNet: one of two encoders |
| `cmc_alexnet_stl10` | 64x64 | 7x7x96 | fc 2048, 2048 | CMC Table 8, the same for STL-10 |
| `cmc_nyu` | 128x128 | 4x4x512 | fc 512 | CMC Table 10, for patches of NYU-Depth-V2; its fc7 is y, 256 |
| `resnet10_cifar`, `resnet18_cifar`, `..34..`, `..50..` | 32x32 | 4x4 | pooled | He et al. 2016 with the usual 3x3 stride-1 stem |
| `resnet50_x05`, `resnet50_x2` | 224x224 | 7x7 | pooled 1024, 4096 | CMC Table 1, every layer half or twice as wide |

They keep timm's conventions (`forward_features`, `forward_intermediates`, `forward_head(pre_logits=True)`, `feature_info`,
`head_hidden_size`), so whatever reads a timm model reads them, and `timm.create_model("dim_dcgan", ...)` makes them.
"""

from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn


def _cfg(size: int, first_conv: str, classifier: str, fixed_input_size: bool) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, size, size),
        "fixed_input_size": fixed_input_size,
        "first_conv": first_conv,
        "classifier": classifier,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }


default_cfgs = generate_default_cfgs(
    {
        "dim_dcgan": _cfg(32, "conv1.0", "head", fixed_input_size=True),
        "dcgan_pooled": _cfg(32, "conv1.0", "head", fixed_input_size=False),
        "dim_alexnet": _cfg(64, "conv1.0", "head", fixed_input_size=True),
        "cmc_alexnet": _cfg(224, "conv1.0", "head", fixed_input_size=True),
        "cmc_alexnet_stl10": _cfg(64, "conv1.0", "head", fixed_input_size=True),
        "cmc_nyu": _cfg(128, "conv1.0", "head", fixed_input_size=True),
        "resnet50_x05": _cfg(224, "conv1", "fc", fixed_input_size=False),
        "resnet50_x2": _cfg(224, "conv1", "fc", fixed_input_size=False),
        "resnet10_cifar": _cfg(32, "conv1", "fc", fixed_input_size=False),
        "resnet18_cifar": _cfg(32, "conv1", "fc", fixed_input_size=False),
        "resnet34_cifar": _cfg(32, "conv1", "fc", fixed_input_size=False),
        "resnet50_cifar": _cfg(32, "conv1", "fc", fixed_input_size=False),
    }
)


def _conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    # "ReLU activations and batch norm were used on every hidden layer" (DIM A.1): no bias before a batch norm.
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class ConvNet(nn.Module):
    """Stages of a convolution each, then fully connected hidden layers on the flattened last map: the papers' own encoders.

    Args:
        num_classes: outputs of the classifier; 0 leaves the last hidden layer as the output.
        in_chans: channels of the input.
        img_size: side of the square input; the flattened last map fixes it.
        channels: outputs of the stages.
        hidden_sizes: units of the hidden layers after the last map; a flattened map (no hidden layer) if empty.
        convolutions: (kernel, stride, padding) of every stage; None for DCGAN's (4, 2, 1), or (3, 1, 1) where stages pool.
        pooled_stages: the stages, counted from 0, whose convolution is followed by max-pooling of stride 2.
        pool_size: side of the pooling's window.
        grid: side of what the hidden layers see of the last map, averaged (or, where it is smaller, repeated) to that, so that
            images may be of any size: 1 is its mean, which forgets where things are. None: the map as it is, of one size.
        dropout: of the hidden layers.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 32,
        channels: tuple[int, ...] = (64, 128, 256),
        hidden_sizes: tuple[int, ...] = (1024,),
        convolutions: tuple[tuple[int, int, int], ...] | None = None,
        pooled_stages: tuple[int, ...] = (),
        pool_size: int = 3,
        grid: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.feature_info: list[dict[str, Any]] = []
        side = img_size if isinstance(img_size, int) else img_size[0]
        reduction, inputs = 1, in_chans
        convolutions = convolutions or ((3, 1, 1) if pooled_stages else (4, 2, 1),) * len(channels)
        for index, (outputs, (kernel, stride, padding)) in enumerate(zip(channels, convolutions, strict=True)):
            layers, scale = _conv(inputs, outputs, kernel, stride, padding), stride
            side = (side + 2 * padding - kernel) // stride + 1
            if index in pooled_stages:
                layers.append(nn.MaxPool2d(pool_size, 2))
                scale, side = scale * 2, (side - pool_size) // 2 + 1
            name = f"conv{index + 1}"
            self.add_module(name, nn.Sequential(*layers))
            reduction, inputs = reduction * scale, outputs
            self.feature_info.append({"num_chs": outputs, "reduction": reduction, "module": name})
        self.num_features = inputs
        self.hidden_sizes = tuple(hidden_sizes)
        hidden: list[nn.Module] = [nn.AdaptiveAvgPool2d(grid)] if grid else []
        hidden.append(nn.Flatten())
        features = inputs * (grid or side) ** 2
        for size in hidden_sizes:
            hidden += [nn.Linear(features, size, bias=False), nn.BatchNorm1d(size), nn.ReLU(inplace=True)]
            if dropout:
                hidden.append(nn.Dropout(dropout))
            features = size
        self.hidden = nn.Sequential(*hidden)
        self.head_hidden_size = features
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_intermediates(self, x: Tensor, **_: Any) -> tuple[Tensor, list[Tensor]]:
        """The last map, and the maps of all stages (B, C, h, w); timm's options, which choose and norm maps, have no use."""
        maps = []
        for info in self.feature_info:
            x = self.get_submodule(info["module"])(x)
            maps.append(x)
        return x, maps

    def forward_features(self, x: Tensor) -> Tensor:
        return self.forward_intermediates(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.hidden(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class CIFARResNet(ResNet):
    """timm's ResNet with the stem for 32x32 images: a 3x3 stride-1 convolution and no max-pooling."""

    def __init__(self, *args: Any, in_chans: int = 3, **kwargs: Any):
        super().__init__(*args, in_chans=in_chans, **kwargs)
        self.conv1 = nn.Conv2d(in_chans, self.conv1.out_channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        for info in self.feature_info:
            info["reduction"] = max(info["reduction"] // 4, 1)


class ScaledResNet(ResNet):
    """timm's ResNet of bottlenecks with all layers `width` times as wide, the stem included, which timm's own options leave."""

    def __init__(self, *args: Any, width: float = 1.0, in_chans: int = 3, **kwargs: Any):
        stem = int(64 * width)
        channels = tuple(stem * 2**stage for stage in range(4))
        super().__init__(*args, in_chans=in_chans, channels=channels, **kwargs)
        first = self.layer1[0]
        self.conv1 = nn.Conv2d(in_chans, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        first.conv1 = nn.Conv2d(stem, first.conv1.out_channels, 1, bias=False)
        first.downsample[0] = nn.Conv2d(stem, first.downsample[0].out_channels, 1, bias=False)
        for conv in (self.conv1, first.conv1, first.downsample[0]):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.feature_info[0]["num_chs"] = stem


def dim_dcgan(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Deep InfoMax's CIFAR encoder: 64-128-256 4x4 stride-2 convolutions and fc 1024 (A.1, after DCGAN)."""
    return build_model_with_cfg(ConvNet, "dim_dcgan", pretrained, **kwargs)


def dcgan_pooled(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The convolutions of `dim_dcgan` with fc 1024 on the mean of the last map, or a `grid` of means, for images of any size."""
    return build_model_with_cfg(ConvNet, "dcgan_pooled", pretrained, **({"grid": 1} | kwargs))


def dim_alexnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Deep InfoMax's encoder of 64x64 images: five convolutions and two fc 4096 (A.1, after AlexNet)."""
    shape = {
        "img_size": 64,
        "channels": (96, 192, 384, 384, 192),
        "hidden_sizes": (4096, 4096),
        "pooled_stages": (0, 1, 4),
    }
    return build_model_with_cfg(ConvNet, "dim_alexnet", pretrained, **(shape | kwargs))


def cmc_alexnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Half of AlexNet for 224x224 images, the encoder of one of CMC's two views (Table 9; its fc8 is y, 128)."""
    shape = {
        "img_size": 224,
        "channels": (48, 128, 192, 192, 128),
        "hidden_sizes": (2048, 2048),
        "convolutions": ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)),
        "pooled_stages": (0, 1, 4),
    }
    return build_model_with_cfg(ConvNet, "cmc_alexnet", pretrained, **(shape | kwargs))


def cmc_alexnet_stl10(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Half of Deep InfoMax's AlexNet for 64x64 images, the encoder of one of CMC's two views (Table 8; its fc8 is y, 64)."""
    shape = {
        "img_size": 64,
        "channels": (48, 96, 192, 192, 96),
        "hidden_sizes": (2048, 2048),
        "pooled_stages": (0, 1, 4),
    }
    return build_model_with_cfg(ConvNet, "cmc_alexnet_stl10", pretrained, **(shape | kwargs))


def cmc_nyu(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CMC's encoder of a view of NYU-Depth-V2, 128x128 patches (Table 10; its fc7 is y, 256)."""
    shape = {
        "img_size": 128,
        "channels": (64, 128, 256, 256, 512),
        "hidden_sizes": (512,),
        "convolutions": ((8, 2, 3), (4, 2, 1), (4, 2, 1), (3, 1, 1), (4, 2, 1)),
        "pooled_stages": (0,),
        "pool_size": 2,
    }
    return build_model_with_cfg(ConvNet, "cmc_nyu", pretrained, **(shape | kwargs))


def resnet50_x05(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 with layers half as wide, one of CMC's two encoders that together are as large as half a ResNet-50."""
    shape = {"block": Bottleneck, "layers": (3, 4, 6, 3), "width": 0.5}
    return build_model_with_cfg(ScaledResNet, "resnet50_x05", pretrained, **(shape | kwargs))


def resnet50_x2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 with layers twice as wide."""
    shape = {"block": Bottleneck, "layers": (3, 4, 6, 3), "width": 2.0}
    return build_model_with_cfg(ScaledResNet, "resnet50_x2", pretrained, **(shape | kwargs))


def resnet10_cifar(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-10, one block in each stage, with the stem for 32x32 images; 0.3 M weights with channels (16, 32, 64, 128)."""
    shape = {"block": BasicBlock, "layers": (1, 1, 1, 1)}
    return build_model_with_cfg(CIFARResNet, "resnet10_cifar", pretrained, **shape, **kwargs)


def resnet18_cifar(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-18 with the stem for 32x32 images."""
    shape = {"block": BasicBlock, "layers": (2, 2, 2, 2)}
    return build_model_with_cfg(CIFARResNet, "resnet18_cifar", pretrained, **shape, **kwargs)


def resnet34_cifar(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-34 with the stem for 32x32 images."""
    shape = {"block": BasicBlock, "layers": (3, 4, 6, 3)}
    return build_model_with_cfg(CIFARResNet, "resnet34_cifar", pretrained, **shape, **kwargs)


def resnet50_cifar(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 with the stem for 32x32 images."""
    shape = {"block": Bottleneck, "layers": (3, 4, 6, 3)}
    return build_model_with_cfg(CIFARResNet, "resnet50_cifar", pretrained, **shape, **kwargs)


# The file travels with every checkpoint and may be executed a second time; timm warns when a name is registered twice.
for _entrypoint in (
    dim_dcgan,
    dcgan_pooled,
    dim_alexnet,
    cmc_alexnet,
    cmc_alexnet_stl10,
    cmc_nyu,
    resnet50_x05,
    resnet50_x2,
    resnet10_cifar,
    resnet18_cifar,
    resnet34_cifar,
    resnet50_cifar,
):
    if not timm.is_model(_entrypoint.__name__):
        register_model(_entrypoint)
