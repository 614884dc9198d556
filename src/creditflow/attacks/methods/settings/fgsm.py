"""Settings of FGSM."""

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """FGSM takes one step of epsilon."""

    random_start: bool = False
    """Whether the step begins at a uniformly random point of the epsilon ball instead of the image."""
