"""Settings of HopSkipJump."""

from collections.abc import Iterator

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The defaults are foolbox's.

    Step t spends min(initial_evaluations sqrt(t + 1), max_evaluations) queries on the estimate of its direction.
    """

    steps: int = Field(64, ge=1, le=1_000_000)
    """Number of steps along estimated directions."""
    initial_evaluations: int = Field(100, ge=1, le=100_000_000)
    """Number of queries that the first direction costs."""
    max_evaluations: int = Field(10_000, ge=1, le=100_000_000)
    """Largest number of queries that a direction costs."""

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yields the first number of queries if the largest one is below it."""
        if self.initial_evaluations > self.max_evaluations:
            yield "initial_evaluations", "above max_evaluations"
