"""LeNet-5 (LeCun et al., 1998) for 28x28 and 32x32 images, with ReLU and max pooling as it is mostly used today."""

from torch import nn

from creditflow.core.errors import UserError


def build(image_shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """Returns the layers up to the 84 features. The first layer pads images of 28x28 pixels to the original 32x32.

    Raises UserError for other image sizes.
    """
    channels, height, width = image_shape
    if (height, width) not in ((28, 28), (32, 32)):
        raise UserError(f"backbone lenet5 takes 28x28 or 32x32 images, not {height}x{width}; use small_cnn")
    # ReLU is monotonic. So it gives the same numbers and gradients after pooling as before it, for a quarter of the
    # work.
    features = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=(32 - height) // 2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 16, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
    )
    return features, 84
