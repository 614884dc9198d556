"""Settings of HAG."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The sign-symmetry paper says 5 iterations and gives no step size; SAAT has 2,000 iterations at epsilon 8/255."""

    iterations: int = Field(5, ge=1, le=1_000_000)
    """Number of steps."""
    step: Literal["gradient", "sign", "l2"] = "gradient"
    """Form of a step. `gradient` is the gradient times `rate`, with momentum (SAAT, for a batch of one image). `sign`
    is the gradient's sign times `relative_step` epsilon. `l2` is the gradient divided by its length, times `rate`.
    There `rate` is a length (1 in DHTA)."""
    rate: float = Field(100.0, gt=0, le=1_000_000_000)
    """Size of the steps `gradient` and `l2`."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the last step's velocity that the step `gradient` keeps."""
    relative_step: float = Field(1 / 3, gt=0, le=100)
    """Size of the step `sign`, in units of epsilon."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """A bit is left alone once its soft value is beyond this threshold on the other side."""
    balance: float = Field(1.0, ge=0, le=1_000_000)
    """Weight of the loss's second term, which is against flipping all bits in the same direction."""

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yields the keys of the other forms of a step."""
        used = {"gradient": ("rate", "momentum"), "sign": ("relative_step",), "l2": ("rate",)}[self.step]
        yield from (
            (name, f"with step: {self.step}") for name in ("rate", "momentum", "relative_step") if name not in used
        )
