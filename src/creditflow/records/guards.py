"""Guards: signs in a record that an attack's number means less than it seems.

A record's `checks` are the facts that an attack measured for this purpose, such as the share of zero gradients
(`attacks/guards.py` measures them). The record of clean accuracy has one of the training, "below_decay"
(`training/decay.py`). A guard fires where such a fact exceeds its limit. This file imports nothing heavy.
"""

from collections.abc import Mapping
from typing import Any

#: A guard fires where its sign is seen on a larger share of images; "below_decay", of layers.
LIMITS = {
    "randomised_outputs": 0.0,
    "saturated_loss": 0.05,
    "zero_gradients": 0.01,
    "nonfinite_gradients": 0.0,
    "unconfirmed_gradients": 0.05,
    "misleading_gradients": 0.05,
    "unconverged": 0.01,
    "only_without_gradient": 0.02,
    "below_decay": 0.0,
}

#: Guards that fire where the record's value is not zero or false.
_FLAGS = ("failed_starts", "above_chance_at_half")

#: Guards whose names say too little.
_IN_WORDS = {
    "unconverged": "not converged",
    "only_without_gradient": "fooled only without gradients",
    "below_decay": "gradient below weight decay",
}


def in_words(guard: str) -> str:
    """Returns how texts call a guard."""
    return _IN_WORDS.get(guard, guard.replace("_", " "))


def fired(checks: Mapping[str, Any]) -> list[str]:
    """Returns the guards that fire for a record's `checks`; a check that the record does not have fires none."""
    above_limit = [name for name, limit in LIMITS.items() if checks.get(name, 0.0) > limit]
    return above_limit + [name for name in _FLAGS if checks.get(name)]
