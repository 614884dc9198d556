"""Settings of DDTP-RHL."""

from pydantic import Field

from creditflow.populations.rules.settings._targets import TargetSettings


class Settings(TargetSettings):
    """The random hidden layer through which feedback goes."""

    width: int = Field(1024, ge=1, le=10_000_000)
    """Number of units of the random hidden layer."""
    recurrent: bool = False
    """Whether the feedback of a layer also sees the clean activation of that layer, as in the supplement's variant."""
