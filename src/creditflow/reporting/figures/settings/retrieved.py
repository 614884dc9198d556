"""Settings of the gallery of what queries retrieve."""

from pydantic import Field

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name


class Settings(SettingsModel):
    """Which model and which attack are shown, and how many queries."""

    dataset: Name | None = None
    """The dataset to show; the experiment's first if left out."""
    backbone: Name | None = None
    """The backbone to show; the experiment's first if left out."""
    rule: Name | None = None
    """The rule to show; frSF, or the experiment's first rule where it has no frSF, if left out."""
    attack: Name | None = None
    """The attack to show; the experiment's first if left out."""
    queries: int = Field(3, ge=1, le=4)
    """Number of queries to show; a record holds the pictures of four."""
