"""Settings of the figure of smallest perturbations."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from creditflow.core.settings import Many
from creditflow.reporting.figures.settings._one_place import OneBackboneSettings
from creditflow.reporting.outcome_settings import OutcomesSettings
from creditflow.reporting.setting_types import Name


class Settings(OneBackboneSettings, OutcomesSettings):
    """Which attacks are shown, on which dataset and which backbone."""

    attacks: Many[Name] = Field(("fab", "fmn_linf", "fab_l2", "fmn_l2", "ddn"), min_length=1)
    """The attacks that measure distances; those that the experiment does not run are left out."""

    def chosen_attacks(self, attacks: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Returns those attacks that the experiment runs."""
        return [name for name in self.attacks if name in attacks]
