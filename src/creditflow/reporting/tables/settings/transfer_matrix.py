"""Settings of the table of networks against surrogates."""

from creditflow.reporting.setting_types import Name
from creditflow.reporting.tables.settings._matrix import MatrixSettings


class Settings(MatrixSettings):
    """Which attack is shown, and at which size of the perturbation."""

    attack: Name = "transfer"
    """The attack that is shown; one that uses a surrogate and that the experiment runs."""
