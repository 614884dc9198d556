"""Settings of PGD away from the mainstay code."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """Budget of the attack; SAAT takes 100 iterations from a random start at epsilon 8/255, with steps of 1/255."""

    iterations: int = Field(100, ge=1, le=1_000_000)
    """Number of gradient steps."""
    relative_step: float = Field(0.125, gt=0, le=100)
    """Size of a step, in units of epsilon."""
    random_start: bool = True
    """Whether the attack begins at a uniformly random point of the epsilon ball instead of the image."""
