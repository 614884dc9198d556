"""Settings of the figure of update angles."""

from creditflow.reporting.figures.settings._one_place import OneBackboneSettings


class Settings(OneBackboneSettings):
    """Which dataset and which backbone are shown."""
