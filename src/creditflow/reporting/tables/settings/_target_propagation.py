"""Settings that the target-propagation paper's tables share."""

from creditflow.reporting.tables.settings._published import OtherPublishedSettings


class TargetPropagationSettings(OtherPublishedSettings):
    """Which published numbers stand beside ours."""

    unpublished: bool = False
    """Whether networks and datasets are shown for which the paper gives no number, too."""
