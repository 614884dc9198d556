"""Settings that tables of one population beside published numbers share."""

from creditflow.reporting.setting_types import Name
from creditflow.reporting.tables.settings._published import OtherPublishedSettings


class OnePopulationSettings(OtherPublishedSettings):
    """Which population is shown, and which published numbers stand beside it."""

    variant: Name | None = None
    """The variant of the population to show; the table's own, or the only one, if left out."""
