"""Settings of the comparison of ours with published numbers."""

from pydantic import Field

from creditflow.reporting.setting_types import Label, Name
from creditflow.reporting.tables.settings._published import PublishedSettings


class Settings(PublishedSettings):
    """What is compared with what."""

    datasets: dict[Label, Name] = Field({})
    """Our dataset that stands for a published one, such as {cifar10: fashion_5_9}; others stand for themselves."""
    epsilon_l2: float | None = Field(None, ge=0, le=10_000)
    """Size of our L2 attacks, pixels in [0, 1]; papers give none. If left out, attacks are not compared."""
