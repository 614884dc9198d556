"""Settings of PGD on the expected gradient."""

from pydantic import Field

from creditflow.attacks.methods.settings import pgd


class Settings(pgd.Settings):
    """Those of PGD, and the number of draws."""

    draws: int = Field(20, ge=1, le=10_000)
    """Number of draws of the feedback weights. They are made once for a batch and all epsilons; AutoAttack averages
    over 20 at each step."""
