"""Downloads that end: the whole of one has a deadline, and a server that says nothing, or too little, is given up.

A limit for each read is not enough: a server that sends one byte every few seconds would hold a job for ever. So each
byte that comes from the network, headers included, is counted here.
"""

import http.client
import io
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any, cast

from creditflow.core.errors import one_line


class NotAvailableError(Exception):
    """This place does not have the file; the message says why."""


@dataclass(frozen=True)
class Patience:
    """How long a download may take.

    Attributes:
        silence_s: seconds without a byte, or until a connection is made.
        window_s, least_bytes: in each such number of seconds, at least this number of bytes must come.
        whole_s: seconds of the whole download, redirections included.
    """

    silence_s: float = 30
    window_s: float = 60
    least_bytes: int = 1 << 20
    whole_s: float = 24 * 3600


PATIENCE = Patience()
_PIECE = 1 << 20


class _Watch:
    """Looks at the clock before and after each read of a download. Raises TimeoutError when patience is over."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._deadline = time.monotonic() + patience.whole_s
        self._window_end = time.monotonic() + patience.window_s
        self._in_window = 0

    def seconds(self) -> float:
        """Returns for how long the next step may wait."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it is not done after {self._patience.whole_s:g} s")
        return min(left, self._patience.silence_s)

    def count(self, n_bytes: int) -> None:
        self._in_window += n_bytes
        now = time.monotonic()
        if now < self._window_end:
            return
        if self._in_window < self._patience.least_bytes:
            raise TimeoutError(
                f"it is too slow: {self._in_window} bytes in {self._patience.window_s:g} s, where at least"
                f" {self._patience.least_bytes} must come"
            )
        self._window_end, self._in_window = now + self._patience.window_s, 0


class _WatchedSocket(io.RawIOBase):
    """What a socket receives, watched."""

    def __init__(self, connection: socket.socket, watch: _Watch) -> None:
        self._connection, self._watch = connection, watch
        self._file = connection.makefile("rb", buffering=0)  # keeps the socket open until this is closed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._watch.seconds())
        try:
            n_bytes = self._connection.recv_into(buffer)
        except TimeoutError:
            self._watch.seconds()  # says so if the whole time is over
            raise TimeoutError("the server says nothing") from None
        self._watch.count(n_bytes)
        return n_bytes

    def close(self) -> None:
        self._file.close()
        super().close()


def _watched_handlers(watch: _Watch) -> list[urllib.request.BaseHandler]:
    """Returns handlers of http and https whose connections are watched."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self.fp.close()
            self.fp = io.BufferedReader(_WatchedSocket(sock, watch))

    class Connection(http.client.HTTPConnection):
        response_class = Response

        def connect(self) -> None:
            self.timeout = watch.seconds()
            super().connect()

    class SecureConnection(http.client.HTTPSConnection):
        response_class = Response

        def connect(self) -> None:
            self.timeout = watch.seconds()
            super().connect()

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(SecureConnection, req)

    return [Http(), Https()]


def _opener(watch: _Watch) -> urllib.request.OpenerDirector:
    """Returns what opens http, https and file addresses, and nothing else: there is no watch over FTP."""
    opener = urllib.request.OpenerDirector()
    handlers = [
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.FileHandler(),
        urllib.request.HTTPErrorProcessor(),
        *_watched_handlers(watch),
    ]
    for handler in handlers:
        opener.add_handler(handler)
    return opener


def open_address(address: str, patience: Patience | None = None) -> AbstractContextManager[IO[bytes]]:
    """Opens a public address (http, https or file). Reading raises OSError or HTTPException when patience is over.

    Raises NotAvailableError if it cannot be opened.
    """
    watch = _Watch(patience or PATIENCE)
    try:
        return cast("AbstractContextManager[IO[bytes]]", _opener(watch).open(address, timeout=watch.seconds()))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotAvailableError(f"{address}: {one_line(error)}") from error


def length_of(response: object) -> int | None:
    """Returns the number of bytes that a server promises, if it does."""
    length = str(getattr(response, "headers", {}).get("Content-Length", ""))
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None


def pieces(read: Callable[[int], bytes], limit: int, origin: str) -> Iterator[bytes]:
    """Yields a stream in pieces. Raises NotAvailableError if it breaks off, or has more than `limit` bytes."""
    total = 0
    while True:
        try:
            piece = read(_PIECE)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotAvailableError(f"{origin}: {one_line(error)}") from error
        if not piece:
            return
        total += len(piece)
        if total > limit:
            raise NotAvailableError(f"{origin} is larger than the {limit >> 20:,} MiB that are expected at most")
        yield piece
