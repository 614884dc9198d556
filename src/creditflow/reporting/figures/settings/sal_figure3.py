"""Settings of the form of the SAL paper's Figure 3."""

from pydantic import Field, model_validator

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Layer, Name, Variants


class Settings(SettingsModel):
    """Which network and which layer are shown."""

    variants: Variants = Field({})
    """The variant to show, with its label, such as {SAL: mlp_60x8}."""
    rule: Name = "sal"
    """The rule to show."""
    dataset: Name | None = None
    """The dataset to show; the experiment's first if left out."""
    layer: Layer | None = None
    """The hidden layer to show, 1, 2, ...; the last if left out."""

    @model_validator(mode="after")
    def _names_one_population(self) -> "Settings":
        if len(self.variants) != 1:
            raise ValueError(f"variants must name one population, such as {{SAL: mlp_60x8}}, not {len(self.variants)}")
        return self
