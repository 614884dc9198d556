"""Settings of FAB in the L2 norm."""

from creditflow.attacks.methods.settings import fab


class Settings(fab.Settings):
    """Those of FAB in the L-infinity norm."""
