"""Settings of DDN."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The defaults are foolbox's."""

    steps: int = Field(100, ge=1, le=1_000_000)
    """Number of gradient steps; a step is at most 1 long (L2), and falls along a cosine to 0.01."""
    first_size: float = Field(1.0, gt=0, le=10_000)
    """Size (L2) of the perturbation at the start."""
    gamma: float = Field(0.05, gt=0, lt=1)
    """By which share the size of the perturbation changes in each step."""
