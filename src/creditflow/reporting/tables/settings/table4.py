"""Settings of the table of accuracy under HopSkipJump."""

from creditflow.reporting.tables.settings._epsilon import EpsilonSettings


class Settings(EpsilonSettings):
    """At which L2 size accuracy under HopSkipJump is shown."""
