"""Settings of the transfer attack."""

from creditflow.attacks.methods.settings import pgd


class Settings(pgd.Settings):
    """Those of PGD, which makes the images on the surrogate."""
