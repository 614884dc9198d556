"""Every wait has a bound on the whole: servers that say nothing, or too little, and programs that hang."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from creditflow.core.errors import UserError
from creditflow.data import downloads, sources
from creditflow.data.downloads import NotAvailableError, Patience
from creditflow.data.image_files import read_image
from creditflow.data.sources import DebianPackage, Download, DownloadEach
from creditflow.models import published, torchvision_networks
from creditflow.models.published import fetch_weights
from creditflow.workflow import forkserver, locks
from helpers import ROOT

SRC = Path(downloads.__file__).parents[2]

#: A tenth of a second for silence, three tenths for a slow server, and one second for the whole.
SHORT = Patience(silence_s=0.1, window_s=0.3, least_bytes=1000, whole_s=1)


def silent(connection: socket.socket) -> None:
    """Accepts, and says nothing."""


def drips_status(connection: socket.socket) -> None:
    drip(connection, b"HTTP/1.1 200 OK" + b" " * 10_000)


def drips_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    drip(connection, b"X-Header: x\r\n" * 1000)


def drips_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    drip(connection, b"x" * 100_000)


def drips_chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    drip(connection, b"1\r\nx\r\n" * 10_000)


def stops_in_the_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nsome")


def never_ends(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(500))
        time.sleep(0.02)


def drip(connection: socket.socket, content: bytes) -> None:
    """Sends a byte every 20 ms: each read is answered in time."""
    for byte in content:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


BAD_SERVERS = [silent, drips_status, drips_headers, drips_body, drips_chunks, stops_in_the_body, never_ends]


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yields the address of a server that answers each connection in this way, and then waits."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def talk(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.recv(1000)
                answer(connection)
                done.wait(5)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=[server.accept()[0]], daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        done.set()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", SHORT)


@pytest.mark.parametrize("answer", BAD_SERVERS, ids=lambda answer: answer.__name__)
@pytest.mark.parametrize("what", ["dataset", "published file", "weights"])
def test_a_server_that_is_silent_or_slow_is_given_up(
    what: str, answer: Callable[[socket.socket], None], short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    start = time.monotonic()
    with serving(answer) as address, pytest.raises((NotAvailableError, UserError)) as caught:
        if what == "dataset":
            Download(lambda: [address]).deliver("file", "0" * 64, target)
        elif what == "published file":
            DownloadEach({"file": f"{address}/file"}).deliver("file", "md5:" + "0" * 32, target)
        else:
            kind = type(published.torchvision_model("resnet18"))
            monkeypatch.setattr(kind, "weights_address", lambda self, name: f"{address}/resnet18-00000000.pth")
            fetch_weights("resnet18", "IMAGENET1K_V1", [], target)
    assert time.monotonic() - start < 2.5
    message = str(caught.value)
    assert "\n" not in message and address in message
    assert re.search("says nothing|too slow|not done after|timed out", message), message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [silent, drips_body, never_ends], ids=lambda answer: answer.__name__)
def test_published_weights_of_any_network_are_not_waited_for(
    answer: Callable[[socket.socket], None], short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    start = time.monotonic()
    with serving(answer) as address, pytest.raises(UserError, match=rf"^{address}/x\.pth cannot be fetched .* put the"):
        torchvision_networks._fetched(f"{address}/x.pth")
    assert time.monotonic() - start < 2.5 and list((tmp_path / "checkpoints").iterdir()) == []


def test_published_weights_of_any_network_are_what_their_name_says(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def good(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    digits = hashlib.sha256(b"bytes").hexdigest()[:8]
    with serving(good) as address:
        assert torchvision_networks._fetched(f"{address}/x-{digits}.pth").read_bytes() == b"bytes"
        with pytest.raises(UserError, match="truncated, corrupt or another file"):
            torchvision_networks._fetched(f"{address}/x-00000000.pth")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"x-{digits}.pth"]


def test_the_whole_time_counts_over_redirections(short: None) -> None:
    def redirect(connection: socket.socket) -> None:
        time.sleep(0.05)
        number = time.monotonic_ns()
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: /{number}\r\nContent-Length: 0\r\n\r\n".encode())

    with serving(redirect) as address, pytest.raises(NotAvailableError, match=address):
        downloads.open_address(address)


def test_a_patient_download_has_what_the_server_sends(tmp_path: Path, short: None) -> None:
    content = bytes(range(256)) * 4000

    def good(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)

    with serving(good) as address, downloads.open_address(address) as response:
        assert downloads.length_of(response) == len(content)
        assert b"".join(downloads.pieces(response.read, 1 << 30, address)) == content
    with (
        serving(good) as address,
        downloads.open_address(address) as response,
        pytest.raises(NotAvailableError, match=r"is larger than the 0 MiB"),
    ):
        list(downloads.pieces(response.read, 1000, address))


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/x", "data:,x", "nonsense", "http://[", "file:///not/there"])
def test_addresses_that_are_not_opened(address: str) -> None:
    with pytest.raises(NotAvailableError) as caught:
        downloads.open_address(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("program", ["apt-get", "dpkg-deb"])
def test_programs_that_hang_are_ended(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {"apt-get": "case $* in *download*) touch toy.deb ;; esac", "dpkg-deb": "true"} | {program: "sleep 60"}
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sources, "_APT_TIMEOUT_S", 0.3)
    start = time.monotonic()
    with pytest.raises(NotAvailableError, match=r"timed out after 0\.3 seconds"):
        DebianPackage("toy", "usr").deliver("file", "0" * 64, tmp_path / "target")
    assert time.monotonic() - start < 5


def test_every_program_that_the_library_starts_has_a_time_limit() -> None:
    """`Popen` starts what is to last: the server of forks."""
    without = []
    paths = [path for folder in (SRC, ROOT / "envs", ROOT / "containers") for path in folder.rglob("*.py")]
    for path in sorted(paths):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"subprocess\.(run|call|check_call|check_output)\(|os\.system\(", text):
            if "timeout=" not in balanced(text[match.end() :]):
                without.append(f"{path.relative_to(ROOT)}: {match.group()}")
        if "Popen(" in text and "forkserver" not in path.parts:
            without.append(f"{path.relative_to(ROOT)}: Popen")
    assert without == []


def balanced(text: str) -> str:
    """Returns the arguments of a call, up to its closing bracket."""
    depth = 1
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[:place]
    return text


def test_only_one_module_opens_addresses() -> None:
    """A new download has to go through `data/downloads.py`, where the whole is bounded.

    `torch.hub.get_dir()` opens nothing: it names the folder of torch's cache.
    """
    openers = re.compile(
        r"urlopen|urlretrieve|torch\.hub(?!\.get_dir\(\))|requests\.|HTTPS?Connection|create_connection"
        r"|load_state_dict_from_url"
    )
    found = {
        str(path.relative_to(SRC)) for path in SRC.rglob("*.py") if openers.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"creditflow/data/downloads.py"}


def test_a_named_pipe_in_an_image_s_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.jpg")
    with pytest.raises(UserError, match="not a plain file"):
        read_image(tmp_path / "image.jpg", "RGB", 32)


@pytest.fixture
def server_of_forks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Yields the socket of a server whose patience is 0.5 s, and a client whose patience is 0.5 s."""
    here = Path(forkserver.__file__).parent
    for name in ("server", "client"):
        text = (here / f"{name}.py").read_text(encoding="utf-8")
        text, n_changes = re.subn(
            r"^(_PATIENCE, _MAX_REQUEST = |PATIENCE = )\d+", r"\g<1>0.5", text, flags=re.MULTILINE
        )
        assert n_changes == 1
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(forkserver, "_HERE", tmp_path)
    server, client = forkserver.launch(["json"])
    yield Path(client[-1]), Path(client[-2])
    assert server.stdin is not None
    server.stdin.close()
    server.wait(10)


@pytest.mark.parametrize("request_", [b"", b"\x00" * 7, (1 << 40).to_bytes(8, "big"), (1000).to_bytes(8, "big") + b"{"])
def test_a_client_that_says_too_little_does_not_hold_the_server(
    request_: bytes, server_of_forks: tuple[Path, Path], tmp_path: Path
) -> None:
    path, client = server_of_forks
    done = threading.Event()

    def hold() -> None:
        with socket.socket(socket.AF_UNIX) as bad, contextlib.suppress(OSError):
            bad.connect(str(path))
            if request_:
                socket.send_fds(bad, [request_], [0, 1, 2])
            while not done.wait(0.1):  # each byte comes in time, and the whole never does
                if len(request_) > 8:
                    bad.sendall(b" ")

    threading.Thread(target=hold, daemon=True).start()
    time.sleep(0.1)
    (tmp_path / "stage.py").write_text("print('done')\n", encoding="utf-8")
    start = time.monotonic()
    command = [sys.executable, "-I", "-S", str(client), str(path), str(tmp_path / "stage.py")]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20, check=True).stdout
    done.set()
    assert said == "done\n" and time.monotonic() - start < 4


def test_a_server_that_never_answers_is_not_waited_for(server_of_forks: tuple[Path, Path], tmp_path: Path) -> None:
    _, client = server_of_forks
    (tmp_path / "stage.py").write_text("import sys, json; print(json.dumps(sys.argv[1:]))\n", encoding="utf-8")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        command = [sys.executable, "-I", "-S", str(client), str(tmp_path / "mute"), str(tmp_path / "stage.py"), "a"]
        with (tmp_path / "said").open("wb") as said:  # the mute server holds it, so a pipe would have no end
            subprocess.run(command, stdout=said, timeout=20, check=True)
    assert json.loads((tmp_path / "said").read_bytes()) == ["a"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.3)
    yield
    locks._held = None


def test_a_snakemake_that_hangs_with_the_lock_is_named(tmp_path: Path, impatient: None) -> None:
    (tmp_path / ".snakemake").mkdir()
    with (tmp_path / ".snakemake/alive.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(
            UserError, match=r"another Snakemake has kept .*/alive\.lock .*, end it, then run"
        ) as caught:
            locks.release_dead_locks(tmp_path)
        assert time.monotonic() - start < 2 and "\n" not in str(caught.value)


def test_a_snakemake_that_lives_keeps_its_locks(tmp_path: Path, impatient: None) -> None:
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    with (tmp_path / ".snakemake/alive.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        locks.release_dead_locks(tmp_path)
        assert (tmp_path / ".snakemake/locks").is_dir()
    locks.release_dead_locks(tmp_path)
    assert not (tmp_path / ".snakemake/locks").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_lock_file_is_not_waited_for(tmp_path: Path, impatient: None, make: Callable[[Path], None]) -> None:
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    make(tmp_path / ".snakemake/alive.lock")
    locks.release_dead_locks(tmp_path)
    assert (tmp_path / ".snakemake/locks").is_dir()


def test_every_lock_is_tried_and_none_is_waited_for() -> None:
    """Whoever waits for a lock looks again and again until a time that is set."""
    waiting = []
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"\b(flock|lockf)\(", text):
            arguments = balanced(text[match.end() :])
            if "LOCK_NB" not in arguments and "LOCK_UN" not in arguments:
                waiting.append(f"{path.relative_to(SRC)}: {match.group()}{arguments})")
    assert waiting == []
