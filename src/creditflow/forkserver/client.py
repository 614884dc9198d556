"""Runs a stage in a fork of the server (`server.py`) as if it ran here: same files, folder, environment, signals, exit status.

usage: python -I -S client.py SOCKET STAGE [ARGUMENT...]
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    path, *arguments = sys.argv[1:]
    # Until it is known to whom to pass them on, signals wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
        except OSError:  # it has ended: the stage loads its libraries itself
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            os.execvp("python", ["python", *arguments])
        request = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()  # noqa: PTH109 (pathlib takes longer to load than all of this)
        socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(request)
        with server.makefile("r") as answers:
            child = answers.readline()
            if child:
                _pass_signals_on(int(child))
            status = answers.readline()
    if not status:
        sys.exit("error: the process that jobs are forked from was killed (too little memory?); run the same command again")
    _end(int(status))


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
