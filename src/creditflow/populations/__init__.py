"""Small networks trained many at a time: seeds x learning rates of one update rule in one job."""

from creditflow.populations.network import Network, Parameters, initial_parameters
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import Batch, Update, UpdateRule, get_update_rule
from creditflow.populations.training import train_population

__all__ = [
    "Batch",
    "Member",
    "Network",
    "Parameters",
    "Population",
    "Update",
    "UpdateRule",
    "get_update_rule",
    "initial_parameters",
    "train_population",
]
