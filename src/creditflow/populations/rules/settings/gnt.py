"""Settings of Gauss-Newton targets."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The inverse that makes the targets."""

    damping: float = Field(0.0, ge=0, le=1e12)
    """Damping of the Gauss-Newton inverse; with 0 it is the pseudo-inverse."""
