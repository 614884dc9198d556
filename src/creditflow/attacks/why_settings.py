"""Settings of the stage that measures why an attack through some gradient fails or succeeds."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from creditflow.core.settings import Many, SettingsModel

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class WhySettings(SettingsModel):
    """What is measured of each attacker's gradient, on fixed images, at one epsilon (L-infinity).

    The attacker takes sign steps from the image itself, as PGD without a random start does.
    """

    epsilon: float = Field(gt=0, le=1)
    """Size of the perturbation, for pixels in [0, 1]."""
    images: int = Field(100, ge=1, le=100_000_000)
    """Number of test images, the same ones for every model and every gradient."""
    batch_size: int = Field(250, ge=1, le=10_000_000)
    """Number of images that are attacked at once."""
    steps: Annotated[Many[Count], Field(min_length=1)] = (1, 2, 5, 10, 20, 50, 100, 200)
    """Numbers of steps after which loss and accuracy are measured. They must rise; the last one ends the walk."""
    step_divisor: int = Field(10, ge=1, le=1_000_000)
    """The size of a step of this walk is epsilon divided by this number."""
    divisors: Annotated[Many[Count], Field(min_length=1)] = (1, 2, 5, 10, 20, 50)
    """Sizes of a step that are compared: epsilon divided by each of these numbers."""
    steps_of_divisors: int = Field(20, ge=1, le=1_000_000)
    """Number of steps with each of these sizes."""

    @model_validator(mode="after")
    def _rise(self) -> Self:
        for name in ("steps", "divisors"):
            values = getattr(self, name)
            if any(second <= first for first, second in pairwise(values)):
                raise ValueError(f"{name} must rise, but it is {list(values)}")
        return self
