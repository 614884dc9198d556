"""Settings of the figure of PEPITA's instability."""

from pydantic import Field

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name, Variants


class Settings(SettingsModel):
    """Which populations are shown; their settings must have `stability_images`."""

    variants: Variants = Field({})
    """The variants to show by their labels, such as {natural images: natural}; a row of panels for each."""
    rule: Name = "pepita"
    """The rule to show."""
    dataset: Name | None = None
    """The dataset to show; the experiment's first if left out."""
