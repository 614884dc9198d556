"""Settings of the Boundary Attack."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The default is foolbox's."""

    steps: int = Field(25_000, ge=1, le=100_000_000)
    """Number of steps of the random walk; each costs about one query."""
