"""Writes the pinned environments from pyproject.toml: `make lock`.

requirements.txt      what the workflow runs with; pip installs it
requirements-dev.txt  what the tests and linters need on top
environment.yaml      the same pins for conda and `snakemake --sdm conda`

pip resolves both together, so that the tools fit the workflow's versions. Packages that torch's CUDA build brings
along are left out: torch itself pins them, and its CPU build does not want them.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ENVS = Path(__file__).parent
PYTHON = "3.11"
HEADER = "# Written by envs/lock.py (make lock); edit pyproject.toml instead.\n"
LEFT_TO_TORCH = ("nvidia-", "cuda-", "triton")


def main() -> None:
    """Resolves the direct dependencies of pyproject.toml and writes the three files."""
    project = tomllib.loads((ENVS.parent / "pyproject.toml").read_text())
    runtime = project["project"]["dependencies"]
    everything = resolve([*runtime, *project["dependency-groups"]["dev"]], [])
    # The workflow's own pins: what its dependencies alone need, at the versions that fit the tools too.
    needed = resolve(runtime, pins(everything))
    extra = {name: version for name, version in everything.items() if name not in needed}
    (ENVS / "requirements.txt").write_text(HEADER + "".join(f"{pin}\n" for pin in pins(needed)))
    (ENVS / "requirements-dev.txt").write_text(
        HEADER + "-r requirements.txt\n" + "".join(f"{pin}\n" for pin in pins(extra))
    )
    (ENVS / "environment.yaml").write_text(HEADER + conda_environment(pins(needed)))


def resolve(requirements: list[str], constraints: list[str]) -> dict[str, str]:
    """Returns {normalised name: version} of everything pip would install, without installing it."""
    with tempfile.TemporaryDirectory() as scratch:
        constraint_file = Path(scratch, "constraints.txt")
        constraint_file.write_text("\n".join(constraints))
        report = Path(scratch, "report.json")
        command = [sys.executable, "-m", "pip", "install", "-qqq", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "-c", str(constraint_file), "--report", str(report), *requirements], check=True)
        installed = json.loads(report.read_text())["install"]
    found = {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"].partition("+")[0]
        for item in installed
    }
    return {name: version for name, version in sorted(found.items()) if not name.startswith(LEFT_TO_TORCH)}


def pins(versions: dict[str, str]) -> list[str]:
    """Returns `name==version` lines."""
    return [f"{name}=={version}" for name, version in versions.items()]


def conda_environment(lines: list[str]) -> str:
    """Returns a conda environment that installs the same pins with pip: PyPI's builds, so the same numbers."""
    listed = "".join(f"      - {line}\n" for line in lines)
    return f"name: creditflow\nchannels: [conda-forge]\ndependencies:\n  - python={PYTHON}\n  - pip\n  - pip:\n{listed}"


if __name__ == "__main__":
    main()
