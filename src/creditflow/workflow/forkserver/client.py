"""Runs a stage in a fork of the server (`server.py`) as if it ran here.

Files, folder, environment, signals and exit status are the same.

usage: python -I -S client.py SOCKET STAGE [ARGUMENT...]
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    path, *arguments = sys.argv[1:]
    # Until it is known to whom to pass them on, signals wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    with socket.socket(socket.AF_UNIX) as server, server.makefile("r") as answers:
        try:
            _ask(server, path, arguments)
            child = answers.readline()
        except OSError:
            child = ""
        if not child:
            _run_here(arguments)
        _pass_signals_on(int(child))
        try:
            status = answers.readline()
        except OSError:
            status = ""
    if not status:
        sys.exit(
            "error: the process that jobs are forked from was killed (too little memory?); run the same command again"
        )
    _end(int(status))


def _ask(server: socket.socket, path: str, arguments: list[str]) -> None:
    server.connect(path)
    folder = os.getcwd()  # noqa: PTH109 (pathlib takes longer to load than all of this)
    request = json.dumps({"arguments": arguments, "folder": folder, "environment": dict(os.environ)}).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)


def _run_here(arguments: list[str]) -> NoReturn:
    """Where the server has ended or cannot fork, the stage loads its libraries itself."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    os.execv(sys.executable, [sys.executable, *arguments])


def _pass_signals_on(child: int) -> None:
    def pass_on(number: int, frame: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)


def _end(status: int) -> None:
    """Ends as the fork did: with its exit code, or by the signal that killed it."""
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
