"""Settings of FMN in the L-infinity norm."""

from creditflow.attacks.methods.settings import fmn_l2


class Settings(fmn_l2.Settings):
    """Those of FMN in the L2 norm. A step has a length in L2 here, too."""
