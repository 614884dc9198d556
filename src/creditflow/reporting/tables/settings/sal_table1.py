"""Settings of the form of the SAL paper's Table 1."""

from creditflow.reporting.tables.settings._one_population import OnePopulationSettings


class Settings(OnePopulationSettings):
    """Which population is shown, and which published numbers stand beside it."""
