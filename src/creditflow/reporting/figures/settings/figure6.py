"""Settings of the form of the sign-symmetry paper's Figure 6."""

from creditflow.reporting.figures.settings._curves import CurvesSettings


class Settings(CurvesSettings):
    """Which dataset and which backbone are shown."""
