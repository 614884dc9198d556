"""Settings that tables and figures of networks against attackers share."""

from collections.abc import Mapping
from typing import Any

from creditflow.reporting.outcome_settings import OutcomesSettings
from creditflow.reporting.setting_types import Name
from creditflow.reporting.tables.settings._epsilon import EpsilonSettings


class MatrixSettings(EpsilonSettings, OutcomesSettings):
    """Which attack is shown, and at which size of the perturbation."""

    attack: Name
    """The attack that is shown; one that the experiment runs."""

    def chosen_attacks(self, attacks: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Returns the one attack, if the experiment runs it."""
        return [name for name in attacks if name == self.attack]
