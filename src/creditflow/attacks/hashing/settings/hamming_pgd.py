"""Settings of PGD on the expected Hamming similarity."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """Budget of the reference attack."""

    iterations: int = Field(40, ge=1, le=1_000_000)
    """Number of gradient steps."""
    relative_step: float = Field(0.1, gt=0, le=100)
    """Size of a step, in units of epsilon."""
    random_start: bool = True
    """Whether the attack begins at a uniformly random point of the epsilon ball instead of the image."""
