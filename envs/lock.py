"""Writes the pinned environments from pyproject.toml: `make lock`.

requirements.txt         what the workflow runs with, except torch
requirements-torch.txt   torch and torchvision as the package index has them, with the CUDA libraries and triton
requirements-source.txt  packages of which there are no wheels; they are built with the locked setuptools
requirements-dev.txt     what the tests and linters need on top
check.txt                what looks at the locks (CHECKERS), in an environment of its own, .venv-check
environment.yaml         the same pins for conda and `snakemake --sdm conda`; pip verifies no hashes there

Each pin has the SHA-256 of all files of its version, so that pip can verify what it installs on every platform
(`pip install --require-hashes`). envs/install.py installs the files, and envs/audit.py looks up known vulnerabilities.

uv resolves all of them together, so that the tools fit the workflow's versions. It asks PyPI, or the index that
UV_DEFAULT_INDEX names. With --keep, versions stay as they are locked, and only hashes are looked up anew.
"""

import argparse
import hashlib
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

from packaging.markers import Marker

ENVS = Path(__file__).parent
PYTHON = "3.11"
HEADER = "# Written by envs/lock.py (make lock); edit pyproject.toml instead.\n"
#: Which build of torch a machine wants depends on the machine, so torch and what it brings have a file of their own.
OF_TORCH = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)$")
CHECKERS = ["pip-audit", "uv"]
WITHOUT_WHEELS = ("connection-pool",)
PLATFORMS = [
    {"sys_platform": system, "platform_system": name, "os_name": "posix", "platform_machine": machine}
    for system, name, machines in (("linux", "Linux", ("x86_64", "aarch64")), ("darwin", "Darwin", ("arm64",)))
    for machine in machines
]
NO_HASHES = """\
# pip verifies no hashes here. It wants a hash of every package or of none, and which build of torch is right depends on
# the machine. `make install` verifies hashes.
"""


def main() -> None:
    """Resolves the direct dependencies of pyproject.toml and writes the six files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uv", default="uv", help="the program uv")
    parser.add_argument("--keep", action="store_true", help="keep the versions that are locked")
    args = parser.parse_args()
    project = tomllib.loads((ENVS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    runtime = [*project["project"]["dependencies"], *extras["workflow"]]
    versions = [pin for path in sorted(ENVS.glob("requirements*.txt")) for pin in pins(path)] if args.keep else []
    everything = resolve(args.uv, [*runtime, *project["dependency-groups"]["dev"]], versions)
    # The workflow's own pins: what its dependencies alone need, at the versions that fit the tools too.
    needed = resolve(args.uv, runtime, [entry.partition(" ")[0] for entry in everything.values()])
    checkers = resolve(args.uv, CHECKERS, pins(ENVS / "check.txt") if args.keep else [])
    for name, content in (files(everything, needed) | {"check.txt": text(list(checkers.values()))}).items():
        (ENVS / name).write_text(content, encoding="utf-8")


def pins(path: Path) -> list[str]:
    """Returns the `name==version` texts of a locked file, without markers and hashes."""
    return re.findall(r"^[\w.-]+==[\w.]+", path.read_text(encoding="utf-8"), re.MULTILINE)


def resolve(uv: str, requirements: list[str], constraints: list[str]) -> dict[str, str]:
    """Returns {name: pin with marker and hashes, as pip reads it} of all that the requirements need.

    Packages that only other platforms than Linux and macOS need are left out.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wanted, limits, locked = (Path(scratch, name) for name in ("wanted.in", "limits.txt", "locked.txt"))
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        limits.write_text("\n".join(constraints), encoding="utf-8")
        command = [uv, "pip", "compile", "--quiet", "--no-config", "--universal", "--python-version", PYTHON]
        command += ["--fork-strategy=fewest", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--only-binary=:all:", *(f"--no-binary={name}" for name in WITHOUT_WHEELS)]
        subprocess.run([*command, "-c", str(limits), "-o", str(locked), str(wanted)], check=True, timeout=3600)
        entries = re.findall(r"^\S.*(?:\n .*)*", locked.read_text(encoding="utf-8"), re.MULTILINE)
    found = {entry.partition("==")[0]: entry for entry in entries}
    return {name: entry for name, entry in sorted(found.items()) if is_needed(entry)}


def is_needed(entry: str) -> bool:
    """Says whether Linux or macOS needs a pin."""
    _, semicolon, marker = entry.partition("\n")[0].removesuffix("\\").partition(" ; ")
    return not semicolon or any(Marker(marker).evaluate(platform) for platform in PLATFORMS)


def files(everything: dict[str, str], needed: dict[str, str]) -> dict[str, str]:
    """Returns the content of each file by its name."""
    torch = [entry for name, entry in needed.items() if OF_TORCH.match(name)]
    source = [entry for name, entry in needed.items() if name in WITHOUT_WHEELS]
    plain = [entry for name, entry in needed.items() if not OF_TORCH.match(name) and name not in WITHOUT_WHEELS]
    others = {"requirements-torch.txt": text(torch), "requirements-source.txt": text(source)}
    # A container image is named after requirements.txt, so that file changes whenever one of the others does.
    sums = "".join(f"# SHA-256 of {name}: {sha256(content)}\n" for name, content in others.items())
    return others | {
        "requirements.txt": text(plain, sums),
        "requirements-dev.txt": text([entry for name, entry in everything.items() if name not in needed]),
        "environment.yaml": HEADER + NO_HASHES + conda_environment(list(needed.values())),
    }


def text(entries: list[str], comment: str = "") -> str:
    """Returns a file of pins for pip."""
    return HEADER + comment + "".join(f"{entry}\n" for entry in entries)


def sha256(content: str) -> str:
    """Returns the SHA-256 of a file's content."""
    return hashlib.sha256(content.encode()).hexdigest()


def conda_environment(entries: list[str]) -> str:
    """Returns a conda environment that installs the same pins with pip: PyPI's builds, so the same numbers.

    torch's CUDA libraries are left out: its CUDA build brings them, and its CPU build does not want them.
    """
    first_lines = (entry.partition("\n")[0].removesuffix("\\").strip() for entry in entries)
    brought = re.compile(r"(triton|nvidia-|cuda-)")
    listed = "".join(f"      - {line}\n" for line in first_lines if not brought.match(line))
    return f"name: creditflow\nchannels: [conda-forge]\ndependencies:\n  - python={PYTHON}\n  - pip\n  - pip:\n{listed}"


if __name__ == "__main__":
    main()
