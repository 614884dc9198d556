"""What a file says that it is, and what its reader expects there.

A file can be whole and yet lie in the place of another: a copy, or what another experiment made. So files state what
they are (experiment, dataset, network, rule, seed, ...) inside the content that is sealed, and readers that know what
belongs there compare.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from creditflow.core.errors import UserError

#: The order in which people read an identity.
_ORDER = ("stage", "experiment", "task", "dataset", "backbone", "rule", "seed", "attack", "gradient")


def described(identity: Mapping[str, object]) -> str:
    """Returns an identity as text, such as "experiment quick, rule bp, seed 0"; other keys come last."""
    names = sorted(identity, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    return ", ".join(f"{name} {identity[name]}" for name in names)


def make_again(path: Path) -> str:
    """Returns what a user does to have the workflow make one file again."""
    return f"make it again with `snakemake --cores all --force {path}`"


def check_identity(path: Path, what: str, stated: Any, expected: Mapping[str, object] | None) -> None:
    """Raises UserError if a file is not what its reader expects.

    Args:
        path: the file, for the message.
        what: the kind of the file in words, such as "the model".
        stated: the identity in the file; anything but a mapping counts as none.
        expected: keys and values that the identity must have; None where the reader expects nothing.
    """
    if not expected:
        return
    if not isinstance(stated, Mapping):
        raise UserError(
            f"{path} does not say what it is, so an older version made it, where {what} of {described(expected)}"
            f" is expected; {make_again(path)}"
        )
    if any(key not in stated or stated[key] != value for key, value in expected.items()):
        raise UserError(
            f"{path} is {what} of {described(stated)}, where that of {described(expected)} is expected;"
            f" {make_again(path)}"
        )
