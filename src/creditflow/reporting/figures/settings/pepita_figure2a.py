"""Settings of the form of the PEPITA paper's Figure 2A."""

from pydantic import Field, model_validator

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Label, Name, Variants


class Settings(SettingsModel):
    """Which networks and which size of the perturbation are shown."""

    dataset: Name | None = None
    """The dataset to show; may be left out where there is only one."""
    epsilon: float | None = Field(None, ge=0, le=10_000)
    """Size of the perturbation, pixels in [0, 1]; may be left out where the audit has only one."""
    variants: Variants = Field({})
    """The variants to show by their labels, such as {0.01: tradeoff_2}; all if left out. The paper's points are trained
    with adversarial images."""
    circled: Label | None = None
    """The label of the variant whose points are circled; the paper circles those of its Table 3."""

    @model_validator(mode="after")
    def _circles_what_is_shown(self) -> "Settings":
        if self.circled is not None and self.circled not in self.variants:
            raise ValueError(f"circled must be a label of `variants`, not {self.circled!r}")
        return self
