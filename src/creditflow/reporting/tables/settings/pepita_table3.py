"""Settings of the form of the PEPITA paper's Table 3."""

from creditflow.reporting.tables.settings._one_population import OnePopulationSettings


class Settings(OnePopulationSettings):
    """Which population is shown, and which published numbers stand beside it."""
