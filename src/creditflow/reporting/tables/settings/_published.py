"""Settings that tables of published numbers share."""

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name

#: The published numbers that a table shows if neither its settings nor its file choose others.
DEFAULT_PUBLISHED = "sign_symmetry"


class PublishedSettings(SettingsModel):
    """Which published numbers a table shows."""

    published: Name = DEFAULT_PUBLISHED
    """A file in config/published, without its suffix."""


class OtherPublishedSettings(SettingsModel):
    """Which published numbers stand beside ours, in a table that belongs to one paper."""

    published: Name | None = None
    """A file in config/published, without its suffix; the table's own paper if left out."""
