"""Settings of the form of the SAL paper's Figure 4."""

from pydantic import Field, model_validator

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Label, Name


class Settings(SettingsModel):
    """Which population makes which line."""

    lines: dict[Label, Name] = Field({})
    """For each label a variant and a rule, such as {all: mlp_200 sal}."""
    dataset: Name | None = None
    """The dataset to show; may be left out where there is only one."""
    metric: Name = "validation_accuracy"
    """What is shown: a metric that is a share and that is measured after each epoch."""

    @model_validator(mode="after")
    def _names_populations(self) -> "Settings":
        if not self.lines:
            raise ValueError("give `lines` in the figure's settings: labels, and for each a variant and a rule")
        for place in self.lines.values():
            if len(place.split(" ")) != 2:
                raise ValueError(f"lines must name a variant and a rule, such as 'mlp_200 sal', not {place!r}")
        return self
