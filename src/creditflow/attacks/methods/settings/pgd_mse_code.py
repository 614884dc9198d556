"""Settings of PGD as the PEPITA paper's code runs it."""

from typing import Literal

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The defaults are advertorch's at an epsilon of 0.1, which is the code's."""

    steps: int = Field(40, ge=1, le=1_000_000)
    """Number of gradient steps; the attack begins at a random point of the epsilon ball."""
    relative_step: float = Field(0.1, gt=0, le=100)
    """Size of a step, in units of epsilon."""
    precision: Literal["float32", "float64"] = "float32"
    """Type of the attack's computations. The paper's code has float64; images that are judged are always float32."""
