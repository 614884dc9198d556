"""Settings of the table of accuracy under Boundary Attack."""

from creditflow.reporting.tables.settings._epsilon import EpsilonSettings


class Settings(EpsilonSettings):
    """At which L2 size accuracy under Boundary Attack is shown."""
