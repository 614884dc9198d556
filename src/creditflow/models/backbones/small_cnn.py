"""A small convolutional network with batch normalisation, for images of 8x8 pixels and more."""

from torch import nn

from creditflow.core.errors import UserError


def build(image_shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """Returns three blocks (16, 32, 64 channels) and global average pooling: 64 features.

    Raises UserError for images smaller than 8x8.
    """
    channels, height, width = image_shape
    if min(height, width) < 8:
        raise UserError(f"backbone small_cnn takes images of at least 8x8, not {height}x{width}")
    features = nn.Sequential(
        *_block(channels, 16),
        nn.MaxPool2d(2),
        *_block(16, 32),
        nn.MaxPool2d(2),
        *_block(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return features, 64


def _block(channels_in: int, channels_out: int) -> list[nn.Module]:
    # Batch normalisation subtracts the mean, so the convolution needs no bias.
    return [nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()]
