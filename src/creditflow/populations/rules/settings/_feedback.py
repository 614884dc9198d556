"""What rules with feedback matrices share."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class FeedbackSettings(SettingsModel):
    """How large feedback matrices are at the start."""

    scale: float = Field(1.0, ge=0, le=1_000_000)
    """Size of the initial feedback matrices, in units of what he_uniform draws (variance 2 / n)."""
