"""Settings of the form of the SAL paper's Figure 5."""

from pydantic import Field

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name, Variants


class Settings(SettingsModel):
    """Which populations make which row."""

    variants: Variants = Field({})
    """The variants to show by their labels, from top to bottom."""
    title: str = "learning rate of V over that of W"
    """What the labels say of a variant."""
    rule: Name = "sal"
    """The rule to show."""
    dataset: Name | None = None
    """The dataset to show; the experiment's first if left out."""
