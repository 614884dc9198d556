"""Settings of the form of the target-propagation paper's Table 1."""

from creditflow.reporting.tables.settings._target_propagation import TargetPropagationSettings


class Settings(TargetPropagationSettings):
    """Which published numbers stand beside ours."""
