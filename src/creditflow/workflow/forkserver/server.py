"""The process that stages are forked from: it has loaded their libraries, which is most of a short job's time.

usage: python server.py LISTENING_DESCRIPTOR LIBRARY...

Clients (`client.py`) send what to run and their three standard files. Each client gets a fork that runs it, the process
id of the fork, and its exit status. A fork whose client has gone is killed, as a scheduler or a user can reach only the
client.
The server itself never imports creditflow, so that jobs run the code that is on disk when they start. It ends after its
standard input is closed (Snakemake has ended) and its last fork has.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

#: What clients pass on. Such a signal to all processes of a job allocation must reach forks, not end the server first.
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

#: Linux: a process is sent this signal when the one that forked it ends.
_PR_SET_PDEATHSIG = 1

#: Seconds within which a client that has connected has said all that it wants, and the most bytes of that.
_PATIENCE, _MAX_REQUEST = 10, 64 << 20


class Server:
    """Forks a process for each client; `serve` returns when there is nothing left to wait for.

    Args:
        listening: the socket to which clients connect.
        memory: the folder in which forks keep what the next need not compute again (`creditflow.core.run_memory`).
    """

    def __init__(self, listening: socket.socket, memory: Path) -> None:
        self.listening = listening
        self.memory = memory
        self.clients: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.wakes, self.wakeup = socket.socketpair()
        for end in (listening, self.wakes, self.wakeup):
            end.setblocking(False)

    def serve(self) -> None:
        signal.set_wakeup_fd(self.wakeup.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a signal without a handler wakes nobody
        self.selector.register(self.listening, selectors.EVENT_READ, self._accept)
        self.selector.register(self.wakes, selectors.EVENT_READ, self._reap)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self._close)
        while self.clients or self.listening.fileno() >= 0:
            for key, _ in self.selector.select():
                key.data()

    def _accept(self) -> None:
        """Forks for a client. Where that fails, the client is let go, and has its stage load its libraries itself."""
        try:
            client, _ = self.listening.accept()
        except OSError:  # closed since, or no descriptor left: then the client is still there the next time
            return
        request, files = _receive(client)
        try:
            child = -1 if request is None else os.fork()
        except OSError:
            child = -1
        if child == 0 and request is not None:
            self._become(request, files, client)
        for number in files:
            os.close(number)
        if child < 0:
            client.close()
            return
        self.clients[child] = client
        self.selector.register(client, selectors.EVENT_READ, lambda: self._abandon(child))
        _say(client, child)

    def _abandon(self, child: int) -> None:
        if child in self.clients:  # it may have ended just now
            self.selector.unregister(self.clients[child])
            os.kill(child, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.wakes.recv(4096):
                pass
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                client = self.clients.pop(ended[0], None)
                if client is None:  # a library's
                    continue
                _say(client, os.waitstatus_to_exitcode(ended[1]))
                with contextlib.suppress(KeyError):
                    self.selector.unregister(client)
                client.close()

    def _close(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            self.selector.unregister(sys.stdin)
            self.selector.unregister(self.listening)
            self.listening.close()

    def _become(self, request: dict[str, Any], files: list[int], client: socket.socket) -> NoReturn:
        """Makes this fork what the client asks for, and runs it."""
        try:
            _die_with(request["server"])
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self.listening, self.wakes, self.wakeup, client, *self.clients.values()):
                end.close()
            for standard, number in enumerate(files):
                os.dup2(number, standard)
                os.close(number)
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environment"] | {"CREDITFLOW_RUN_MEMORY": str(self.memory)})
            sys.argv = request["arguments"]
            sys.path[0] = str(Path(sys.argv[0]).parent.resolve())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
            runpy.run_path(sys.argv[0], run_name="__main__")
            _end(None)
        except SystemExit as end:
            _end(end.code)
        except KeyboardInterrupt:
            traceback.print_exc()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            traceback.print_exc()
        _end(1)


def _die_with(server: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it was faster
        os._exit(1)


def _end(code: object) -> NoReturn:
    """Ends the process as an interpreter does with the argument of sys.exit."""
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit((code or 0) & 0xFF)


def _say(client: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # it has gone
        client.sendall(f"{number}\n".encode())


def _receive(client: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Returns a request and the client's standard files; None if the client went or stopped before it had said all."""
    deadline = time.monotonic() + _PATIENCE
    client.settimeout(_PATIENCE)
    files: list[int] = []
    try:
        start, files, _, _ = socket.recv_fds(client, 8, 3)
        size, content = int.from_bytes(start, "big"), bytearray()
        if len(start) < 8 or size > _MAX_REQUEST or len(files) != 3:  # without descriptors to spare, files are missing
            return None, files
        while len(content) < size:
            client.settimeout(max(deadline - time.monotonic(), 0.001))
            part = client.recv(size - len(content))
            if not part or time.monotonic() > deadline:
                return None, files
            content += part
        if _has_gone(client):
            return None, files
        client.settimeout(None)
        request: dict[str, Any] = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return None, files
    return request | {"server": os.getpid()}, files


def _has_gone(client: socket.socket) -> bool:
    """Says whether a client no longer waits: while this process was stopped, it lost patience and ran its stage."""
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def _put_last(folders: str) -> None:
    """As `creditflow.core.environment.put_last`, which this process must not import."""
    moved = {str(Path(folder).absolute()) for folder in folders.split(os.pathsep) if folder}
    sys.path.sort(key=moved.__contains__)


def main() -> None:
    descriptor, *libraries = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    with socket.socket(fileno=int(descriptor)) as listening:
        folder = Path(listening.getsockname()).parent
        memory = folder / "memory"
        memory.mkdir()
        _put_last(os.environ.get("PYTHONPATH", ""))
        gc.disable()
        for library in libraries:
            importlib.import_module(library)
        gc.freeze()  # forks need not look for garbage among modules
        gc.enable()
        Server(listening, memory).serve()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
