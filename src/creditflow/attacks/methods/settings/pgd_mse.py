"""Settings of PGD on the squared error."""

from pydantic import Field

from creditflow.attacks.methods.settings import pgd


class Settings(pgd.Settings):
    """The step is the PEPITA paper's (0.1 at an epsilon of 0.3); the 40 steps and the random start are its code's."""

    steps: int = Field(40, ge=1, le=1_000_000)
    """Number of gradient steps."""
    random_start: bool = True
    """Whether the attack begins at a uniformly random point of the epsilon ball instead of the image."""
