"""Settings of FGSM as the PEPITA paper's code runs it."""

from typing import Literal

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """In which precision the step is computed."""

    precision: Literal["float32", "float64"] = "float32"
    """Type of the attack's computations. The paper's code has float64; images that are judged are always float32."""
