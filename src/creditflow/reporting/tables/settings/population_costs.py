"""Settings of the table of training costs."""

from pydantic import Field

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name, Variants


class Settings(SettingsModel):
    """Which populations are shown."""

    variants: Variants = Field({})
    """The variants to show, by their labels, such as {SAL: mlp_200}."""
    rule: Name = "all"
    """The rule to show, or "all" for every rule of these variants."""
    dataset: Name | None = None
    """The dataset to show; the experiment's first if left out."""
