"""Settings of the list of published numbers."""

from creditflow.reporting.tables.settings._published import PublishedSettings


class Settings(PublishedSettings):
    """Which published numbers are listed."""
