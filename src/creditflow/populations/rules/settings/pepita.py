"""Settings of PEPITA."""

from typing import Literal

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """What the papers and their code leave open, or do differently."""

    output_error: Literal["first", "second"] = "first"
    """Pass whose error teaches the output layer: first, as in the papers' algorithm, or second, as in their code."""
    adversarial_presynaptic: Literal["own", "natural"] = "own"
    """Input of the first layer in the step on adversarial images: own, the adversarial images', or natural, that of
    the natural images' second pass, as in the robustness paper's code."""
    feedback_scale: float = Field(0.05, ge=0, le=1_000_000)
    """Factor of the projection F, which is drawn from U(+-sqrt(6 / n_0))."""
