"""Settings of the table of networks against attackers' gradients."""

from creditflow.reporting.setting_types import Name
from creditflow.reporting.tables.settings._matrix import MatrixSettings


class Settings(MatrixSettings):
    """Which attack is shown, and at which size of the perturbation."""

    attack: Name = "pgd"
    """The attack that is shown; one that uses a gradient and that the experiment runs."""
