"""Settings of PGD on a smoothed gradient."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """PGD whose gradient is the mean over random points around each iterate. It ends where the model is fooled."""

    steps: int = Field(20, ge=1, le=1_000_000)
    """Number of steps."""
    points: int = Field(8, ge=1, le=10_000)
    """Number of random points around each iterate, over which the gradient is averaged."""
    relative_radius: float = Field(1.0, gt=0, le=1)
    """How far from the iterate they are at most, as a share of epsilon."""
    relative_step: float = Field(0.1, gt=0, le=1)
    """Size of a step, as a share of epsilon."""
