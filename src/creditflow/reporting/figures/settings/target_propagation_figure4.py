"""Settings of the form of the target-propagation paper's Figure 4."""

from creditflow.reporting.figures.settings._one_place import OneVariantSettings
from creditflow.reporting.setting_types import Layer


class Settings(OneVariantSettings):
    """Which dataset, which population and which layer are shown."""

    layer: Layer | None = None
    """The hidden layer to show, 1, 2, ...; the last if left out."""
