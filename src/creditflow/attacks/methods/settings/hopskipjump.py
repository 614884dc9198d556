"""Settings of HopSkipJump."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The defaults are foolbox's.

    Step t spends min(initial_evaluations sqrt(t + 1), max_evaluations) queries on the estimate of its direction.
    """

    steps: int = Field(64, ge=1, le=1_000_000)
    """Number of steps along estimated directions."""
    initial_evaluations: int = Field(100, ge=1, le=100_000_000)
    """Number of queries that the first direction costs."""
    max_evaluations: int = Field(10_000, ge=1, le=100_000_000)
    """Largest number of queries that a direction costs."""
