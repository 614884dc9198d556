"""Settings of the adversary that makes images for adversarial training and for validation."""

from pydantic import Field

from creditflow.core.settings import SettingsModel
from creditflow.populations.choices import LossName


class AdversarySettings(SettingsModel):
    """An attack by the sign of a loss gradient, within an L-infinity ball around each image."""

    epsilon: float = Field(ge=0, le=100)
    """Radius of the ball, for pixels in [0, 1]."""
    steps: int = Field(40, ge=1, le=100_000)
    """Number of steps. One step is FGSM where `step` is epsilon and the attack begins at the image itself."""
    step: float = Field(0.01, gt=0, le=100)
    """Size of a step, for pixels in [0, 1]."""
    random_start: bool = True
    """Whether the attack begins at a uniformly drawn point of the ball."""
    lowest: float = Field(0.0, ge=-1, le=0)
    """Smallest value that a pixel may take. The PEPITA paper's code clips at -1, which lets pixels fall below black."""
    loss: LossName = "mse_softmax"
    """Loss that the attack increases: squared error of outputs or of probabilities, or cross-entropy."""
    float64_loss: bool = False
    """Whether the loss's derivative with respect to the logits is computed in float64 and scaled to a largest absolute
    value of 1 for each image. A saturated softmax then does not hide it. An attack follows its sign alone. This costs
    hardly any time; `precision: float64` of a population takes twice as long."""
