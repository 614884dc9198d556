"""A workflow that was run undisturbed, and its jobs as the commands that Snakemake ran."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers import as_forks, project, snakemake

CRASH = Path(__file__).parent / "crash"

CELLS = """
description: fine-tuning on the digits
datasets:
  low: {source: digits, classes: [0, 1, 2, 3, 4]}
  high: {source: digits, classes: [5, 6, 7, 8, 9]}
backbones: [small_cnn]
rules: [bp, brsf]
seeds: [0, 1]
threads: 1
pretrain: {dataset: low, settings: {epochs: 4, batch_size: 32, learning_rate: 2.0e-3}}
finetune: {datasets: [high], settings: {epochs: 4, batch_size: 32, learning_rate: 2.0e-3, head_learning_rate: 2.0e-2}}
gradients: [exact, feedback]
attacks:
  fgsm: {epsilons: [0, 0.1], images: 40, batch_size: 20}
  cascade:
    gradients: [exact]
    epsilons: [0.1]
    images: 10
    batch_size: 10
    settings: {transfer: {steps: 1}, apgd_scaled: {steps: 1}, square: {queries: 1}}
audit: {epsilons: [0.1], attacks: [fgsm, cascade], claim: fgsm}
tables: {table1: {}, audit: {}}
figures: {figure2: {}}
"""

MANY = """
description: a population on the digits
datasets: {all_digits: {source: digits}}
rules: [bp, pepita]
seeds: [0, 1]
threads: 1
population:
  datasets: [all_digits]
  settings: {hidden: [30], epochs: 6, batch_size: 32, validation_images: 100}
  variants:
    natural: {learning_rates: {all_digits: {bp: [0.1], pepita: [0.1]}}}
gradients: [exact]
attacks: {}
tables: {table1: {}}
figures: {}
"""

GIVEN = """
description: a given network on the digits
datasets: {all_digits: {source: digits}}
models: {plain: {factory: "network.py:make"}}
seeds: [0]
threads: 1
gradients: [exact]
attacks: {}
tables: {table1: {}}
figures: {}
"""

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
"""

EXPERIMENTS = {"cells": CELLS, "many": MANY, "given": GIVEN}

#: Stages that the experiments run.
STAGES = (
    "fetch",
    "prepare",
    "pretrain",
    "finetune",
    "evaluate",
    "attack",
    "train_population",
    "select_member",
    "import_model",
    "collect",
    "make_table",
    "plot_figure",
    "audit",
)


@dataclass(frozen=True)
class Job:
    """What Snakemake ran: the rule, its outputs and the shell command; `seconds` it took."""

    rule: str
    outputs: tuple[Path, ...]
    command: str
    seconds: float


@dataclass(frozen=True)
class Whole:
    """A finished project; `files` are its results, but for what differs between any two runs.

    Tests work in `folder`. `untouched` is the same as the workflow left it, for all processes of the tests.
    """

    untouched: Path
    folder: Path
    jobs: dict[str, list[Job]]
    files: dict[Path, Any]

    def snapshot(self) -> dict[Path, Any]:
        return snapshot(self.folder)

    def start(
        self,
        job: Job,
        *,
        crash_at: int = 0,
        crash_once: Path | None = None,
        full_beyond: int = 0,
        without_privilege: bool = False,
        forked: bool = False,
    ) -> subprocess.Popen[str]:
        """Runs a job's command as Snakemake does, in a process group of its own.

        The stage dies at its nth change of a file if `crash_at` says so, counted from when the file `crash_once` is
        there. It finds the disk full when a file grows beyond `full_beyond` bytes, and permissions hold for it
        `without_privilege`. `forked`, as each of these, runs any stage as a fork of a process that has loaded its
        libraries.
        """
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        prefix = as_forks() if forked else ""
        if crash_at or full_beyond or without_privilege:
            prefix = as_forks(CRASH / "run.py")
            environment |= {"CRASH_AT": str(crash_at), "CRASH_BELOW": str(self.folder / "results")}
        if crash_once:
            environment |= {"CRASH_ONCE": str(crash_once)}
        if full_beyond:
            environment |= {"FULL_BEYOND": str(full_beyond)}
        if without_privilege:
            environment |= {"WITHOUT_PRIVILEGE": "1"}
        return subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail; {prefix}{job.command}"],
            cwd=self.folder,
            env=environment,
            start_new_session=True,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, job: Job, **options: Any) -> tuple[int, str]:
        """Returns the exit status and what was said: all of it in the log, or on the screen where the job has none."""
        process = self.start(job, **options)
        said = process.communicate(timeout=900)[0]
        log = job.command.rpartition(" > ")[2].split()[0].strip("'") if " > " in job.command else ""
        return process.returncode, said + (self.folder / log).read_text(encoding="utf-8") if log else said

    def make_again(self, job: Job) -> None:
        """Runs a job that nothing disturbs, and checks that all results are as they were."""
        status, said = self.run(job, forked=True)
        assert status == 0, said
        assert self.snapshot() == self.files

    def forget(self, job: Job) -> None:
        """Takes a job's outputs away, as Snakemake does before it runs the job."""
        for output in job.outputs:
            path = self.folder / output
            for one in [path] if path.is_file() else sorted(path.rglob("*")):
                one.unlink()

    def check_nothing_is_half_written(self, job: Job) -> None:
        for path, content in self.snapshot().items():
            assert path in self.files, f"{path} was left behind"
            if any(path.is_relative_to(output) for output in job.outputs):
                assert content == self.files[path], f"{path} is not whole"


def snapshot(folder: Path) -> dict[Path, Any]:
    """Returns the content of all results, without logs, times, and files that only a running job has."""
    found: dict[Path, Any] = {}
    for path in sorted((folder / "results").rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or {"logs", "benchmarks", "checkpoints"} & set(name.parts) or name.suffix == ".lock":
            continue
        if path.name == ".snakemake_timestamp" or any(".part" in part for part in name.parts):
            continue
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {key: value for key, value in content.items() if key not in ("run", "seal")}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="session")
def whole(built_once: Callable[[str, Callable[[Path], None]], Path]) -> Iterator[Whole]:
    """The experiments, run once; each process of the tests has a copy. Tests that change something put it right."""

    def build(folder: Path) -> None:
        project(folder, **EXPERIMENTS)
        (folder / "network.py").write_text(NETWORK, encoding="utf-8")
        done = snakemake(folder, *EXPERIMENTS)
        assert done.returncode == 0, done.stdout
        told = snakemake(folder, "--detailed-summary", *EXPERIMENTS)
        assert told.returncode == 0, told.stdout
        (folder / "summary.tsv").write_text(told.stdout[told.stdout.index("output_file\t") :], encoding="utf-8")

    built = built_once("faults", build)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(built, Path(name) / "copy", symlinks=True))
        jobs = _jobs(folder, (folder / "summary.tsv").read_text(encoding="utf-8"))
        yield Whole(built, folder, jobs, snapshot(folder))


def _jobs(folder: Path, summary: str) -> dict[str, list[Job]]:
    outputs: dict[tuple[str, str], list[Path]] = {}
    rows = csv.DictReader(io.StringIO(summary), delimiter="\t", quoting=csv.QUOTE_NONE)
    for row in rows:
        if row["shellcmd"] not in ("", "-"):
            outputs.setdefault((row["rule"], row["shellcmd"]), []).append(Path(row["output_file"]))
    jobs: dict[str, list[Job]] = {}
    for (rule, command), files in outputs.items():
        times = [one for one in files if "benchmarks" in one.parts]
        seconds = float((folder / times[0]).read_text(encoding="utf-8").split("\n")[1].split("\t")[0]) if times else 3.0
        jobs.setdefault(rule, []).append(Job(rule, tuple(sorted(set(files) - set(times))), command, seconds))
    return jobs
