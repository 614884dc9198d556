"""Settings of the Square Attack."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The defaults are AutoAttack's."""

    queries: int = Field(5000, ge=1, le=10_000_000)
    """Number of queries for each image and restart."""
    restarts: int = Field(1, ge=1, le=10_000)
    """Number of runs of the random search."""
    initial_share: float = Field(0.8, gt=0, le=1)
    """Share of the pixels that change in the first steps; it falls as the search goes on."""
