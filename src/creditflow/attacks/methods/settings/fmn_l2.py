"""Settings of FMN in the L2 norm."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The defaults are foolbox's."""

    steps: int = Field(100, ge=1, le=1_000_000)
    """Number of gradient steps."""
    first_step: float = Field(1.0, gt=0, le=1_000)
    """Length (L2) of the first step; it falls along a cosine to a hundredth."""
    gamma: float = Field(0.05, gt=0, lt=1)
    """By which share the size of the perturbation changes in the first steps; it falls along a cosine to 0.001."""
