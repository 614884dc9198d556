"""Settings of APGD on the cross-entropy."""

from typing import Self

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The defaults are AutoAttack's."""

    steps: int = Field(100, ge=1, le=1_000_000)
    """Number of gradient steps of one run."""
    restarts: int = Field(1, ge=1, le=10_000)
    """Number of runs, each from another random point of the epsilon ball."""

    def doubled(self) -> Self:
        """Returns settings with twice the steps, with which an attack that has converged gains nothing."""
        return self.model_copy(update={"steps": 2 * self.steps})
