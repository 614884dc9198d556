"""Installs the locked packages with the pip of the Python that runs this, and verifies them: `make install`.

Everything is verified by SHA-256 (`pip install --require-hashes`). Which build of torch is right depends on the
machine, so torch comes from where pip's configuration says. Its SHA-256 is looked up in requirements-torch.txt (the
builds of the package index) and in torch-builds.txt (the builds for CPUs that PyTorch publishes). If neither has it, as
for a build of one's own, one line says so.

Options are passed to pip, for instance --find-links=/wheels. This script needs no other package.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ENVS = Path(__file__).resolve().parent
NAME, BRANCHES = r"[\w.-]+", "torch|torchvision"
VERIFIED = ["--no-deps", "--require-hashes"]


def main(options: list[str]) -> None:
    """Installs the packages of all files that the workflow needs.

    A pip computes most of the time, on one core. So several of them run at once, each with packages of its own.
    pip and setuptools are installed before, alone: while one replaces another version, a Python that starts may miss
    files. The locked pip takes half of the time of the one that Python 3.11 brings.
    """
    entries = entries_of((ENVS / "requirements.txt").read_text(encoding="utf-8"), NAME)
    installers = [entry for entry in entries if entry.startswith(("pip==", "setuptools=="))]
    others = [entry for entry in entries if entry not in installers]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        install_wheels(installers, scratch / "installers.txt", options)
        with ThreadPoolExecutor() as pool:
            torch = pool.submit(install_torch, scratch, options)
            halves = [
                pool.submit(install_wheels, others[start::2], scratch / f"half{start}.txt", options) for start in (0, 1)
            ]
        for half in halves:
            half.result()
        install_what_torch_brings(torch.result(), scratch, options)
    # Without isolation, pip builds with the setuptools that was just verified, and downloads no other.
    source = ["--no-build-isolation", "--use-pep517", "-r", str(ENVS / "requirements-source.txt")]
    pip(["install", *VERIFIED, *source], options)


def install_wheels(entries: list[str], path: Path, options: list[str]) -> None:
    """Installs the pins of a locked file, verified by their hashes; `path` is a file that is written for pip."""
    pip(["install", *VERIFIED, "--only-binary=:all:", "-r", str(write(path, "".join(entries)))], options)


def install_torch(scratch: Path, options: list[str]) -> list[tuple[str, str, str]]:
    """Installs torch and torchvision, and nothing that they need, and returns their builds (see `build_of`).

    Files that are needed for a moment lie in `scratch`.
    """
    lock = (ENVS / "requirements-torch.txt").read_text(encoding="utf-8")
    pins = [re.split(r"[ \n]", entry)[0] for entry in entries_of(lock, BRANCHES)]
    pip(["download", "--no-deps", "--only-binary=:all:", f"--dest={scratch}", *pins], without_compile(options))
    builds = [build_of(path) for path in sorted(scratch.glob("*.whl"))]
    chosen = write(scratch / "builds.txt", "".join(f"{pin} --hash=sha256:{sha256}\n" for pin, _, sha256 in builds))
    pip(["install", *VERIFIED, "--no-index", f"--find-links={scratch}", "-r", str(chosen)], options)
    return builds


def install_what_torch_brings(builds: list[tuple[str, str, str]], scratch: Path, options: list[str]) -> None:
    """Installs what these builds of torch need beyond requirements.txt, which must be installed before."""
    lock = (ENVS / "requirements-torch.txt").read_text(encoding="utf-8")
    if all(sha256 in lock for _, _, sha256 in builds):
        branches = entries_of(lock, BRANCHES)
        brought = [entry for entry in entries_of(lock, NAME) if entry not in branches]
        install_wheels(brought, scratch / "brought.txt", options)
        return
    known = lock + (ENVS / "torch-builds.txt").read_text(encoding="utf-8")
    for line in remarks(builds, known):
        print(line, file=sys.stderr)
    # Such a build may need other packages than the index's build. A build for CPUs needs none, so this does nothing.
    pip(["install", *(pin for pin, _, _ in builds)], options)


#: Seconds that a run of pip may take, downloads of gigabytes included.
_PATIENCE_S = 3 * 3600


def pip(arguments: list[str], options: list[str]) -> None:
    """Runs pip. Ends this program with pip's exit code if it fails; pip has then said why."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", *options]
    try:
        code = subprocess.run(command, check=False, timeout=_PATIENCE_S).returncode
    except subprocess.TimeoutExpired:
        sys.exit(f"error: pip was not done after {_PATIENCE_S} s; look at the network, then run the same command again")
    if code:
        sys.exit(code)


def without_compile(options: list[str]) -> list[str]:
    """Returns the options without those that only `pip install` knows."""
    return [option for option in options if option not in ("--compile", "--no-compile")]


def entries_of(lock: str, names: str) -> list[str]:
    """Returns the pins in the text of a locked file whose names fit a pattern, with their markers and hashes."""
    return re.findall(rf"^(?:{names})==.*(?:\n .*)*\n", lock, re.MULTILINE)


def build_of(wheel: Path) -> tuple[str, str, str]:
    """Returns the pin of a wheel (name and version), the name of its file, and its SHA-256."""
    sha256 = hashlib.sha256()
    with wheel.open("rb") as file:
        while piece := file.read(1 << 20):
            sha256.update(piece)
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version}", wheel.name, sha256.hexdigest()


def remarks(builds: list[tuple[str, str, str]], known: str) -> Iterator[str]:
    """Yields a line for each build whose SHA-256 is not among the known ones."""
    for _, name, sha256 in builds:
        if sha256 not in known:
            yield (
                f"warning: {name} is not verified: envs/torch-builds.txt does not have its SHA-256 ({sha256});"
                " if you trust this build, add it there"
            )


def write(path: Path, content: str) -> Path:
    """Writes a text file and returns its path."""
    path.write_text(content, encoding="utf-8")
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
