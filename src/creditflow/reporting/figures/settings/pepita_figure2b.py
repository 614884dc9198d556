"""Settings of the form of the PEPITA paper's Figure 2B."""

from creditflow.reporting.figures.settings._one_place import OneVariantSettings


class Settings(OneVariantSettings):
    """Which dataset and which population are shown."""
