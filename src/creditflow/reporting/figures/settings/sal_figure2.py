"""Settings of the form of the SAL paper's Figure 2."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Label, Name


def _whole_number(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isdecimal() else key


#: Units per hidden layer; JSON writes keys as text.
Width = Annotated[int, BeforeValidator(_whole_number), Field(ge=1, le=10_000_000)]


class Settings(SettingsModel):
    """Which populations make which line."""

    lines: dict[Label, dict[Width, Name]] = Field({})
    """For each label the variants by descending width, such as {tanh: {100: tanh_100, 200: tanh_200}}."""
    dataset: Name | None = None
    """The dataset to show; all on which these variants were trained if left out."""
    rule: Name = "sal"
    """The rule to show."""

    @model_validator(mode="after")
    def _has_lines(self) -> "Settings":
        if not any(self.lines.values()):
            raise ValueError("give `lines` in the figure's settings: labels, and for each the variants by width")
        return self
