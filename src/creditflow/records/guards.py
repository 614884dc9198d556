"""What the `checks` of a record mean: which guards fire. Imports nothing heavy; `attacks/guards.py` fills them in."""

from collections.abc import Mapping
from typing import Any

#: A guard fires where its sign is seen on a larger share of images.
LIMITS = {"randomised_outputs": 0.0, "saturated_loss": 0.05, "zero_gradients": 0.01, "nonfinite_gradients": 0.0}

#: Guards that fire where the record's value is not zero or false.
_FLAGS = ("failed_starts", "above_chance_at_half")


def fired(checks: Mapping[str, Any]) -> list[str]:
    """Returns the guards that fire for a record's `checks`."""
    return [name for name, limit in LIMITS.items() if checks.get(name, 0.0) > limit] + [
        name for name in _FLAGS if checks.get(name)
    ]
