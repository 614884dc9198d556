"""The one exception for mistakes that a user can make and mend."""


class UserError(Exception):
    """Something the user can put right; its message is one line: what is wrong, and what to do.

    Stage scripts end with it as `error: ...` on stderr and exit code 2 (see `creditflow.stages.command_line.run_stage`).
    """


def one_line(error: BaseException) -> str:
    """Returns the error's message on a single line, for quoting inside another message."""
    return " ".join(str(error).split()) or type(error).__name__
