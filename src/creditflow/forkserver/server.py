"""The process that short stages are forked from: it has loaded their libraries, which is most of a short job's time.

usage: python server.py SOCKET LIBRARY...

Clients (`client.py`) send what to run and their three standard files; each gets a fork that runs it, the fork's process
id, and its exit status. A fork whose client has gone is killed, as the client is what a scheduler or a user can reach.
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
import traceback
from pathlib import Path
from typing import Any, NoReturn

#: Linux: a process is sent this signal when the one that forked it ends.
_PR_SET_PDEATHSIG = 1


class Server:
    """Forks a process for each client; `serve` returns when there is nothing left to wait for."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.clients: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.wakes, wakeup = socket.socketpair()
        for one in (self.wakes, wakeup):
            one.setblocking(False)
        self.wakeup = wakeup

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
        client, _ = self.listening.accept()
        request, files = _receive(client)
        if request is None:
            client.close()
            return
        child = os.fork()
        if child == 0:
            self._become(request, files, client)
        for number in files:
            os.close(number)
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
                client = self.clients.pop(ended[0])
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
        code: object = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for one in (self.listening, self.wakes, self.wakeup, client, *self.clients.values()):
                one.close()
            for standard, number in enumerate(files):
                os.dup2(number, standard)
                os.close(number)
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environment"])
            sys.argv = request["arguments"]
            sys.path[0] = str(Path(sys.argv[0]).parent.resolve())
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        if not isinstance(code, int):
            print(code, file=sys.stderr)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


def _say(client: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # it has gone
        client.sendall(f"{number}\n".encode())


def _receive(client: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Returns a request and the client's standard files; (None, []) if the client went before it had said all."""
    start, files, _, _ = socket.recv_fds(client, 8, 3)
    size, content = int.from_bytes(start, "big"), b""
    while start and len(content) < size:
        part = client.recv(size - len(content))
        if not part:
            break
        content += part
    if not start or len(content) < size:
        for number in files:
            os.close(number)
        return None, []
    request: dict[str, Any] = json.loads(content)
    return request, files


def main() -> None:
    path, *libraries = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the jobs, whose clients pass it on
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(1024)  # clients wait while the libraries load
        gc.disable()
        for library in libraries:
            importlib.import_module(library)
        gc.freeze()  # forks need not look for garbage among modules
        gc.enable()
        Server(listening).serve()
    shutil.rmtree(Path(path).parent, ignore_errors=True)


if __name__ == "__main__":
    main()
