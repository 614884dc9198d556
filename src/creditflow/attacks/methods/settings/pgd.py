"""Settings of PGD."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The defaults are the sign-symmetry paper's: five steps of epsilon / 3 from the image itself."""

    steps: int = Field(5, ge=1, le=1_000_000)
    """Number of gradient steps."""
    relative_step: float = Field(1 / 3, gt=0, le=100)
    """Size of a step, in units of epsilon."""
    random_start: bool = False
    """Whether the attack begins at a uniformly random point of the epsilon ball instead of the image."""
