"""Settings of the gallery of adversarial images."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from creditflow.reporting.figures.settings._one_place import OneBackboneSettings
from creditflow.reporting.outcome_settings import OutcomesSettings
from creditflow.reporting.setting_types import Name


class Settings(OneBackboneSettings, OutcomesSettings):
    """Which network and which attack are shown, at which size of the perturbation, and how many images."""

    attack: Name | None = None
    """The attack that is shown, whose `keep` must be at least 1; the first attack with `keep` if left out."""
    rule: Name | None = None
    """The rule that is shown; frSF, or the first rule where the attack has no frSF, if left out."""
    epsilon: float | None = Field(None, ge=0, le=10_000)
    """Size of the perturbation in the attack's norm, pixels in [0, 1]; the largest that was kept if left out."""
    images: int = Field(4, ge=1, le=64)
    """Number of images, from the first that was kept."""

    def chosen_attacks(self, attacks: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Returns the attack that is shown, if it keeps images."""
        keeping = [name for name, keys in attacks.items() if keys.get("keep", 0)]
        return keeping[:1] if self.attack is None else [name for name in keeping if name == self.attack]
