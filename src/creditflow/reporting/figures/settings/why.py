"""Settings of the figure that shows why an attack through some gradient fails."""

from pydantic import Field

from creditflow.reporting.figures.settings._one_place import OneBackboneSettings


class Settings(OneBackboneSettings):
    """Which network is shown."""

    rule: str = Field("bp", min_length=1)
    """Id of the rule that trained the network."""
