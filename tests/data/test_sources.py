"""Where raw files come from: folders of the user's, downloads, a Debian package, a Python package."""

import gzip
import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fetch as fetch_stage
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.data.downloads import NotAvailableError
from creditflow.data.fetching import fetch
from creditflow.data.sources import DebianPackage, Download, DownloadEach, PackageFile, receive
from formats import cifar10, md5, svhn, write
from helpers import stage
from preparing import Stages, check_arrays

CONTENT = b"some raw bytes " * 50
PACKED = gzip.compress(CONTENT)

SUMS = {"raw-file": files.sha256(CONTENT)}


@pytest.mark.parametrize("name", ["raw-file", "raw-file.gz"])
def test_a_search_path_comes_first_plain_or_compressed(name: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    (here / name).write_bytes(gzip.compress(CONTENT) if name.endswith("gz") else CONTENT)
    source = fetch("toy", SUMS, [PackageFile("nowhere")], [tmp_path / "missing", here], there)
    assert source == f"folder {here}"
    assert (there / "raw-file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "broken",
    [PACKED[:-20], PACKED[:30] + b"xx" + PACKED[32:], CONTENT[:-1]],
    ids=["cut short", "two bytes changed", "not packed"],
)
def test_a_broken_file_in_a_search_path_is_named_and_nothing_else_is_tried(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "raw-file.gz").write_bytes(broken)
    good = Download(lambda: [(tmp_path / "mirror").as_uri()])
    with pytest.raises(UserError, match=r"toy: .*raw-file.*(truncated|corrupt).*replace it or move it away"):
        fetch("toy", SUMS, [good], [tmp_path], tmp_path)


def test_mirrors_are_tried_in_turn_and_their_content_is_verified(tmp_path: Path) -> None:
    bad, good, out = tmp_path / "bad", tmp_path / "good", tmp_path / "out"
    for folder in (bad, good, out):
        folder.mkdir()
    (bad / "raw-file.gz").write_bytes(gzip.compress(CONTENT)[:-9])
    (good / "raw-file.gz").write_bytes(gzip.compress(CONTENT))
    mirrors = Download(lambda: [(tmp_path / "missing").as_uri(), bad.as_uri(), good.as_uri()])
    assert fetch("toy", SUMS, [mirrors], [], out) == "download"
    assert (out / "raw-file").read_bytes() == CONTENT

    (bad / "raw-file.gz").write_bytes(b"<html>a page instead of the file</html>")
    assert fetch("toy", SUMS, [mirrors], [], out) == "download"

    (good / "raw-file.gz").write_bytes(gzip.compress(CONTENT + b"!"))
    with pytest.raises(UserError, match="SHA-256"):
        fetch("toy", SUMS, [mirrors], [], out)


@pytest.mark.parametrize(
    "reply", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ncut"]
)
def test_a_server_that_talks_nonsense_is_one_more_reason(reply: bytes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="no source has it"):
            fetch("toy", SUMS, [Download(lambda: [address])], [], tmp_path)
        thread.join()


def test_when_no_source_has_it_every_reason_is_given(tmp_path: Path) -> None:
    sources = [Download(lambda: [(tmp_path / "mirror").as_uri()]), PackageFile("not_a_package")]
    with pytest.raises(UserError) as caught:
        fetch("toy", SUMS, sources, [tmp_path / "missing"], tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(tmp_path / "missing"), "mirror", "not_a_package", "data.search_paths", "config/config.yaml"):
        assert part in message


@pytest.mark.parametrize("known", [True, False])
def test_the_debian_package_is_downloaded_with_package_lists_of_its_own(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt-get and dpkg-deb are scripts here that need, as the real ones do, lists that an update has written."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "apt-get").write_text(
        "#!/bin/sh\n"
        "for word; do case $word in -oDir::State::Lists=*) lists=${word#*=} ;; -o*) ;; *) break ;; esac; shift; done\n"
        "case $1 in\n"
        f" update) touch $lists/{'toy' if known else 'other'} ;;\n"
        " download) if [ -e $lists/$2 ]; then touch $2.deb;"
        ' else echo "E: Unable to locate package $2" >&2; exit 100; fi ;;\n'
        "esac\n",
        encoding="utf-8",
    )
    (bin_folder / "dpkg-deb").write_text(
        f'#!/bin/sh\nmkdir -p "$3/usr/share/toy" && cp {tmp_path}/raw-file "$3/usr/share/toy/"\n', encoding="utf-8"
    )
    for script in bin_folder.iterdir():
        script.chmod(0o755)
    (tmp_path / "raw-file").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    out = tmp_path / "out"
    out.mkdir()
    package = DebianPackage("toy", "usr/share/toy")
    if known:
        assert fetch("toy", SUMS, [package], [], out) == "Debian package toy"
        assert (out / "raw-file").read_bytes() == CONTENT
    else:
        with pytest.raises(UserError, match="apt-get download toy failed: E: Unable to locate package toy"):
            fetch("toy", SUMS, [package], [], out)


def test_a_failed_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "digits.csv.gz").write_bytes(b"\x1f\x8bbroken")
    done = stage(
        "fetch", "--dataset", "digits", "--search-path", tmp_path / "bad", "--output", tmp_path / "out" / "raw"
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "digits.csv.gz is truncated or corrupt" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_fetch_notes_where_the_files_came_from(digits: Path) -> None:
    origin = json.loads((digits.parent / "raw" / "origin.json").read_text(encoding="utf-8"))
    assert origin["source"] == "Python package sklearn.datasets.data"


class Drop:
    """A stream that is never asked for everything at once."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, n: int) -> bytes:
        assert 0 < n <= 1 << 24
        n = min(n, self.left)
        self.left -= n
        return bytes(n)


def test_published_files_pass_through_in_pieces(tmp_path: Path) -> None:
    size = (40 << 20) + 5
    receive(Drop(size), md5(bytes(size)), tmp_path / "target", "here", size)
    assert (tmp_path / "target").stat().st_size == size
    with pytest.raises(NotAvailableError, match=r"its MD5 is not 0000"):
        receive(Drop(size), "md5:" + "0" * 32, tmp_path / "target", "here")
    assert not (tmp_path / "target").exists()


def test_downloads_of_published_files(stages: Stages) -> None:
    files, expected = svhn()
    write(stages.folder, {f"{number}/{name}": content for number, (name, content) in enumerate(files.items())})
    addresses = {name: (stages.folder / str(number) / name).as_uri() for number, name in enumerate(files)}
    checksums = {name: md5(content) for name, content in files.items()}
    stages.change("svhn", checksums=checksums, sources=[DownloadEach(addresses)])
    assert json.loads((stages.fetch("svhn") / "origin.json").read_text(encoding="utf-8"))["source"] == "download"
    check_arrays(stages.prepare("svhn"), expected)
    stages.change("svhn", sources=[DownloadEach(addresses | {"test_32x32.mat": (stages.folder / "nowhere").as_uri()})])
    with pytest.raises(
        UserError,
        match=r"svhn: no source has it .*nowhere.*; put train_32x32.mat, test_32x32.mat into a folder and name it",
    ):
        stages.fetch("svhn")


def test_published_files_by_the_scripts_themselves(tmp_path: Path) -> None:
    """A copy of the sources, in which the published checksum is another."""
    files, expected = cifar10()
    (content,) = files.values()
    shutil.copytree(Path(fetch_stage.__file__).parent, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "src/creditflow/data/datasets/cifar10.py"
    source = path.read_text(encoding="utf-8").replace("md5:c58f30108f718f92721af3b95e74349a", md5(content))
    path.write_text(source, encoding="utf-8")
    write(tmp_path, {"here/cifar-10-python.tar.gz": content})
    for name, arguments in (
        ("fetch", ["--search-path", "here", "--output", "raw"]),
        ("prepare", ["--raw", "raw", "--output", "out"]),
    ):
        command = [sys.executable, f"src/{name}.py", "--dataset", "cifar10", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "cifar10: 50 train images\ncifar10: 10 test images\n"
    check_arrays(tmp_path / "out", expected)
