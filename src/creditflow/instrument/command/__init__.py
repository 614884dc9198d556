"""The command line `creditflow`: audits of anybody's models from the shell."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process: 0, or 2 after a mistake of the user's, which is told in one line.

    Args:
        arguments: what stands behind `creditflow`; those of this process if None.
    """
    from creditflow.core.programs import run_program
    from creditflow.instrument.command.application import run

    run_program(lambda: run(sys.argv[1:] if arguments is None else arguments))
