"""The exception for mistakes that a user can correct."""

from collections.abc import Sequence
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can correct. The message is one line: what is wrong, and what to do.

    A stage script prints it as `error: ...` on stderr and ends with exit code 2; see `stages.command_line.run_stage`.
    """


def one_line(error: BaseException) -> str:
    """Returns the error's message on a single line, for quoting inside another message."""
    return " ".join(str(error).split()) or type(error).__name__


def suggestion(name: str, known: Sequence[str]) -> str:
    """Returns '; did you mean ...' or '; choose from ...' for an unknown name."""
    if not known:
        return "; there is none to choose from"
    small = {other.lower(): other for other in known}  # of names that differ in capitals alone, the last is as good
    close = [small[other] for other in get_close_matches(name.lower(), small, n=1)]
    return f"; did you mean {close[0]!r}?" if close else f"; choose from: {', '.join(known)}"
