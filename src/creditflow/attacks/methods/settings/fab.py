"""Settings of FAB."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """AutoAttack runs 100 steps, 1 restart and 9 targets. Without targets each step costs a gradient per class."""

    steps: int = Field(100, ge=1, le=1_000_000)
    """Number of steps of one run."""
    restarts: int = Field(1, ge=1, le=10_000)
    """Number of runs; all but the first begin at a random point of the epsilon ball."""
    targets: int = Field(0, ge=0, le=100_000)
    """How many of the likeliest other classes are aimed at, one after the other; 0 aims at the nearest of all."""
