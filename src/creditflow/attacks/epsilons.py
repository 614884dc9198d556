"""Sizes of perturbations."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field

from creditflow.core.errors import UserError
from creditflow.core.settings import Many


def check_epsilons(epsilons: Sequence[float]) -> None:
    """Raises UserError unless epsilons are finite, at least 0, and rise."""
    if not epsilons or any(not 0 <= epsilon < float("inf") for epsilon in epsilons):
        raise UserError(f"epsilons must be finite numbers of at least 0, not {list(epsilons)}")
    if any(later <= earlier for earlier, later in pairwise(epsilons)):
        raise UserError(f"epsilons must rise, each once, not {list(epsilons)}")


def check_norm(epsilons: Sequence[float], norm: str) -> None:
    """Raises UserError for sizes in the wrong unit: pixels lie in [0, 1], and an L0 attack counts pixels."""
    if norm == "linf" and max(epsilons) > 1:
        raise UserError(f"pixels lie in [0, 1], so that {max(epsilons):g} bounds nothing; say 8/255 as 0.03137")
    if norm == "l0" and any(epsilon % 1 for epsilon in epsilons):
        raise UserError(f"an L0 attack counts pixels, so that epsilons are whole numbers, not {list(epsilons)}")


def _checked(epsilons: tuple[float, ...]) -> tuple[float, ...]:
    try:
        check_epsilons(epsilons)
    except UserError as error:
        raise ValueError(str(error)) from None
    return epsilons


#: The type of a setting: sizes that rise, in the norm of an attack, for pixels in [0, 1]; an L0 attack counts pixels.
Epsilons = Annotated[Many[Annotated[float, Field(ge=0, le=10_000_000)]], Field(min_length=1), AfterValidator(_checked)]
