"""A promise holds in every mode: each failed job has its line however quiet Snakemake is, and folders are looked at."""

import re
import shutil
from pathlib import Path

import pytest

from helpers import ROOT, project, snakemake
from workflows.test_sign_symmetry_workflow import TINY

#: In the place of the stage that fetches: one dataset is broken, one is killed, one is there at the second attempt.
FETCH = """\
import os, signal, sys
from pathlib import Path
from creditflow.core.errors import UserError
from creditflow.stages.command_line import run_stage
print("fetching")
sys.stdout.flush()
def main():
    output = Path(sys.argv[-1])
    mode = Path("mode").read_text()
    if mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "retried" and "digits" in str(output):
        tried = Path("tried")
        if tried.exists():
            return output.mkdir(parents=True)
        tried.touch()
    raise UserError("it is broken; mend it")
run_stage(main)
"""

RAW = ("results/data/digits/raw", "results/data/fashion_mnist/raw")
LOGS = ("results/data/logs/fetch/digits.log", "results/data/logs/fetch/fashion_mnist.log")

#: How the Makefile calls Snakemake.
OF_MAKE = [
    options.split() for options in re.findall(r"(--quiet [a-z ]+?) --", (ROOT / "Makefile").read_text(encoding="utf-8"))
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project(tmp_path_factory.mktemp("broken"), tiny=TINY)
    (folder / "src/fetch.py").write_text(FETCH, encoding="utf-8")
    return folder


def lines_of(folder: Path, mode: str, *arguments: str) -> list[str]:
    """Returns the last lines of a run that fails: those that begin with `error: ` without any other line after them."""
    shutil.rmtree(folder / "results", ignore_errors=True)
    (folder / "tried").unlink(missing_ok=True)
    (folder / "mode").write_text(mode, encoding="utf-8")
    done = snakemake(folder, *arguments)
    assert done.returncode != 0, done.stdout
    lines = done.stdout.rstrip().splitlines()
    last = next(number for number, line in enumerate(reversed(lines)) if not line.startswith("error: "))
    assert last, done.stdout
    return sorted(lines[-last:])


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-q"],
        ["--quiet", "rules"],
        ["--quiet", "progress"],
        ["--verbose"],
        ["--no-hooks"],
        ["--cores", "1"],
        *OF_MAKE,
    ],
    ids=" ".join,
)
def test_a_failed_job_has_one_line_however_quiet_snakemake_is(broken: Path, options: list[str]) -> None:
    lines = lines_of(broken, "broken", *options, "--", RAW[0])
    assert lines == [f"error: fetch {LOGS[0]}: it is broken; mend it"]


def test_make_is_among_the_modes() -> None:
    assert ["--quiet", "host"] in OF_MAKE and ["--quiet", "all"] in OF_MAKE


@pytest.mark.parametrize("quiet", [[], ["--quiet", "all"]], ids=" ".join)
def test_every_failed_job_has_a_line_and_one_that_was_made_at_last_has_none(broken: Path, quiet: list[str]) -> None:
    lines = lines_of(broken, "broken", *quiet, "--keep-going", "--", *RAW)
    assert lines == [f"error: fetch {log}: it is broken; mend it" for log in LOGS]
    lines = lines_of(broken, "retried", *quiet, "--keep-going", "--retries", "1", "--", *RAW)
    assert lines == [f"error: fetch {LOGS[1]}: it is broken; mend it"]


@pytest.mark.parametrize("quiet", [[], ["-q"], ["--quiet", "all"]], ids=" ".join)
def test_a_killed_job_has_its_line(broken: Path, quiet: list[str]) -> None:
    (line,) = lines_of(broken, "killed", *quiet, "--", RAW[0])
    assert line.startswith(f"error: fetch {LOGS[0]}: ended without a word, as a process killed for lack of memory does")


def test_a_module_explains_its_own_jobs(broken: Path, tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("broken", encoding="utf-8")
    (tmp_path / "Snakefile").write_text(
        f"module ours:\n    snakefile: {str(broken / 'Snakefile')!r}\n    config: {{}}\n\n"
        "use rule * from ours as ours_*\n\nrule theirs:\n    output: 'theirs.txt'\n    shell: 'exit 1'\n",
        encoding="utf-8",
    )
    done = snakemake(tmp_path, "--quiet", "all", "--keep-going", "--", "theirs.txt", RAW[0])
    lines = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert lines == [f"error: ours_fetch {LOGS[0]}: it is broken; mend it"], done.stdout


def test_without_any_failed_job_the_reason_is_said_too(broken: Path) -> None:
    done = snakemake(broken, "--quiet", "all", "--", "results/data/nothing/such")
    assert done.returncode != 0 and "error: " in done.stdout.splitlines()[-1], done.stdout


@pytest.mark.parametrize("kind", ["a file", "a link to nothing"])
@pytest.mark.parametrize(
    "place", ["results", "results/data", "results/data/logs", "results/data/benchmarks", ".snakemake/metadata"]
)
def test_a_folder_that_cannot_be_written_is_told_before_any_job(broken: Path, place: str, kind: str) -> None:
    shutil.rmtree(broken / "results", ignore_errors=True)
    path = broken / place
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    path.write_text("", encoding="utf-8") if kind == "a file" else path.symlink_to("/nonexistent/folder")
    try:
        done = snakemake(broken, "--quiet", "all", "--", RAW[0])
    finally:
        path.unlink()
        shutil.rmtree(broken / "results", ignore_errors=True)
    assert done.returncode == 2, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: nothing can be written in {place} (") and "--directory" in line
    assert "Traceback" not in done.stdout
