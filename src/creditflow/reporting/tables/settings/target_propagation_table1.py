"""Settings of the form of the target-propagation paper's Table 1."""

from creditflow.reporting.tables.settings._published import OtherPublishedSettings


class Settings(OtherPublishedSettings):
    """Which published numbers stand beside ours."""
