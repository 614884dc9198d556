"""Settings that tables and figures of single images' outcomes share: they choose the attacks whose records are read."""

from collections.abc import Mapping
from typing import Any

from creditflow.core.settings import SettingsModel


class OutcomesSettings(SettingsModel):
    """Base of the settings of what is made from outcomes (`source="outcomes"`)."""

    def chosen_attacks(self, attacks: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Returns the ids of the attacks that are shown; `attacks` are those of the experiment with their keys."""
        raise NotImplementedError
