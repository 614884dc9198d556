"""Settings of DFA as the target-propagation paper has it."""

from creditflow.populations.rules.settings._targets import LastHiddenBias


class Settings(LastHiddenBias):
    """Its targets lie one loss gradient away, so that there is no step size."""
