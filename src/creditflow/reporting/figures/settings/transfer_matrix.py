"""Settings of the heat map of networks against surrogates."""

from creditflow.reporting.figures.settings._one_place import OneBackboneSettings
from creditflow.reporting.tables.settings import transfer_matrix


class Settings(transfer_matrix.Settings, OneBackboneSettings):
    """Which attack is shown, at which size of the perturbation, on which dataset and which backbone."""
