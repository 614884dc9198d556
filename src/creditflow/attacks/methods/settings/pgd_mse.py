"""Settings of PGD on the squared error."""

from typing import Literal

from pydantic import Field

from creditflow.attacks.methods.settings import pgd


class Settings(pgd.Settings):
    """The step is the PEPITA paper's (0.1 at an epsilon of 0.3); the 40 steps and the random start are its code's."""

    steps: int = Field(40, ge=1, le=1_000_000)
    """Number of gradient steps."""
    random_start: bool = True
    """Whether the attack begins at a uniformly random point of the epsilon ball instead of the image."""
    precision: Literal["float32", "float64"] = "float32"
    """Type of the attack's computations. The paper's code has float64; images that are judged are always float32."""
