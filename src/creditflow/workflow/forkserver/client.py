"""Runs a stage in a fork of the server (`server.py`) as if it ran here.

Files, folder, environment, signals and exit status are the same.

usage: python -I -S client.py SOCKET STAGE [ARGUMENT...]
"""

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

#: Seconds until the server has loaded its libraries and has forked. After them, the stage loads its libraries itself.
PATIENCE = 300

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    path, *arguments = sys.argv[1:]
    # Until it is known to whom to pass them on, signals wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    with socket.socket(socket.AF_UNIX) as server:
        try:
            deadline = time.monotonic() + PATIENCE
            server.settimeout(PATIENCE)
            _ask(server, path, arguments)
            child = _answer(server, deadline)
        except OSError:
            child = ""
        if not child:
            server.close()  # a server that was only stopped must see that nobody waits for its fork
            _run_here(arguments)
        _pass_signals_on(int(child))
        try:
            status = _answer(server, None)  # a job takes as long as it takes; schedulers and users can end it
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


def _answer(server: socket.socket, deadline: float | None) -> str:
    """Returns a line of the server without its end; "" if the server ends. Raises TimeoutError after the deadline."""
    line = b""
    while not line.endswith(b"\n"):
        server.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
        # A byte at a time: the other line may follow at once.
        byte = server.recv(1)
        if not byte:
            return ""
        line += byte
    return line.decode().strip()


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
