"""Settings of the heat map of networks against attackers' gradients."""

from creditflow.reporting.figures.settings._one_place import OneBackboneSettings
from creditflow.reporting.tables.settings import gradient_matrix


class Settings(gradient_matrix.Settings, OneBackboneSettings):
    """Which attack is shown, at which size of the perturbation, on which dataset and which backbone."""
