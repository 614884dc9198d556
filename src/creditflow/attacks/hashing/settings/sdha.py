"""Settings of SDHA."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The sign-symmetry paper says 5 iterations; SAAT has 1,500 at epsilon 8/255."""

    iterations: int = Field(5, ge=1, le=1_000_000)
    """Number of steps."""
    rate: float = Field(0.01, gt=0, le=100)
    """Step size of Adam, in pixel values of [0, 1]."""
    slope: float = Field(5.0, gt=0, le=1_000_000)
    """Slope of the gate s, which stops changing bits that have flipped."""
    power: float = Field(0.5, ge=-100, le=100)
    """Power p of the weight (Hamming distance)^-p of a training image's code: near codes weigh more where p is
    positive."""
    weight: float = Field(25.0, gt=0, le=1_000_000_000)
    """Weight of the distance against the visible change; it is divided by the number of bits."""
