"""Settings of the few-pixel attack."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """Budget of differential evolution; the defaults are those of Su et al. (2019)."""

    generations: int = Field(100, ge=1, le=1_000_000)
    """Number of generations."""
    population: int = Field(400, ge=5, le=1_000_000)
    """Number of members of a generation; each costs one query. Differential evolution needs at least five."""
