"""Small models, data and projects for the tests."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from unittest.mock import patch

import snakemake as snakemake_package
import torch
from torch import Tensor, nn

from creditflow.data.prepared import Subset
from creditflow.models.build import ImageClassifier, ModelSpec, build_model
from creditflow.workflow import forkserver

ROOT = Path(__file__).resolve().parents[1]

#: An environment variable: the number of jobs from which on a run of a `project` has its stages forked (1 if unset).
FORKED_FROM = "CREDITFLOW_TEST_FORKED_FROM"

#: An environment variable: Bash that comes before each job of a `project` in the function that has stages forked.
BEFORE_JOBS = "CREDITFLOW_TEST_BEFORE_JOBS"

#: Environment variables: the commands by which stages and Snakemakes are forked from servers that are there already.
STAGES, SNAKEMAKES = "CREDITFLOW_TEST_STAGES", "CREDITFLOW_TEST_SNAKEMAKES"

TINY_TRAINING = '{"epochs": 3, "batch_size": 32, "learning_rate": 0.002, "head_learning_rate": 0.02}'


def subset(n: int = 60, n_classes: int = 3, size: int = 12, seed: int = 0) -> Subset:
    """Noisy images whose brightest corner tells the class: easy to learn, easy to attack."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % n_classes
    images = torch.randint(0, 120, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        images[index, 0, row * size // 2 : (row + 1) * size // 2, column * size // 2 : (column + 1) * size // 2] += 100
    return Subset(images, labels, tuple("abcdefgh"[:n_classes]), (0.3,), (0.2,))


def small_model(n_classes: int = 3, size: int = 12, seed: int = 0) -> ImageClassifier:
    spec = ModelSpec("small_cnn", (1, size, size), n_classes, (0.3,), (0.2,))
    return build_model(spec, "test", seed)


class Awkward(nn.Module):
    """Every kind of Linear and Conv2d geometry in one network; inputs (N, 4, 11, 11), outputs (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect", groups=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, (3, 2), dilation=(1, 2), padding=(2, 1), bias=False),
            nn.Tanh(),
            nn.Conv2d(6, 8, 2, padding="same", padding_mode="circular"),
            nn.Tanh(),
            nn.Conv2d(8, 4, 3, padding="same", dilation=2, groups=4),
            nn.Softplus(),
            nn.Conv2d(4, 4, 2, padding=1, padding_mode="replicate", stride=(1, 2)),
        )
        self.tokens = nn.Linear(4, 5)
        self.head = nn.Linear(5, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layers(x).flatten(2).transpose(1, 2)  # (N, positions, channels): a 3-d input for Linear
        return self.head(torch.tanh(self.tokens(maps)).mean(1))


def project(folder: Path, *, own_server: bool = False, **experiments: str) -> Path:
    """Copies the workflow, without results, into a folder.

    Without experiments of its own it gets all that the project ships. With some, it gets these, `quick`, and what these
    extend: every start of Snakemake reads all experiments. All of its stages are forks where the workflow forks stages
    at all: tests train for less time than it takes to load PyTorch. They are forks of the server that these tests have,
    or of one that each run starts, as users' runs do (`own_server`).
    """
    for name in ("Snakefile", "rules", "src", "config", "profiles", "envs", "containers"):
        source = ROOT / name
        if source.is_dir():
            # Byte code is copied, too: it fits sources of the same time and size, and all jobs would else compile anew.
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("*.sif", "*.sha256", "*.part", "*.pyc.*")
            )
        else:
            shutil.copy(source, folder / name)
    _fork_every_stage(folder / "src", own_server)
    shipped = folder / "config/experiments"
    if experiments:
        needed = _bases("quick", *re.findall(r"^extends: *(\w+)", "\n".join(experiments.values()), re.MULTILINE))
        for path in shipped.iterdir():
            if path.stem not in needed:
                path.unlink()
    for name, text in experiments.items():
        (shipped / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def _fork_every_stage(source: Path, own_server: bool) -> None:
    path = source / "creditflow/workflow/forkserver/__init__.py"
    stages = tuple(sorted(script.stem for script in source.glob("*.py")))
    changes = {r"^STAGES = \(.*?^\)": f"STAGES = {stages}"}
    if not own_server:  # each would load PyTorch for seconds; with one that is there, a single job is worth a fork
        server = f"server, client = None, {_stages()[0]}"
        least = f"MIN_JOBS = int(os.environ.get({FORKED_FROM!r}, 1))"
        changes |= {r"server, client = launch\(.*?\)$": server, r"^MIN_JOBS = \d+": least}
        changes |= {r"(?<=return f'python\(\) {{ )": f'{{os.environ.get("{BEFORE_JOBS}", "")}} '}
    text = path.read_text(encoding="utf-8")
    for old, new in changes.items():
        text, n = re.subn(old, lambda _, new=new: new, text, flags=re.MULTILINE | re.DOTALL)  # type: ignore[misc]
        assert n == 1, old
    path.write_text(text, encoding="utf-8")


def _bases(*names: str) -> set[str]:
    """Returns experiments that the project ships, and all that they extend or borrow models from."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        path = ROOT / f"config/experiments/{name}.yaml"
        if name not in found and path.exists():
            found.add(name)
            waiting += re.findall(r"\b(?:extends|experiment): *(\w+)", path.read_text(encoding="utf-8"))
    return found


def snakemake(
    folder: Path, *arguments: str, timeout: float = 1800, forked: bool = True, runner: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs Snakemake with a user's arguments; stdout and stderr come back as one text.

    It is a fork of a process that has imported Snakemake, which is half of a dry-run. `forked=False` starts Snakemake
    as users do; so do tests of interruptions and `.ci/run`. A fork can be that of a runner: a script that gets
    Snakemake's script and arguments, and runs it.
    """
    script = str(Path(snakemake_package.__file__).with_name("__main__.py"))
    scripts = [script] if runner is None else [str(runner), script]
    command = [*_snakemakes()[0], *scripts] if forked else [sys.executable, "-m", "snakemake"]
    return subprocess.run(
        [*command, "--cores", "2", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


@cache
def _snakemakes() -> tuple[list[str], "subprocess.Popen[bytes] | None"]:
    """Returns the command that runs a script in a fork of a process that has imported Snakemake, and that process."""
    if shared := os.environ.get(SNAKEMAKES):
        return shlex.split(shared), None
    libraries = ("snakemake.cli", "snakemake.api", "snakemake.report", "smart_open", "yte", "jinja2", "pandas")
    with patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parent)}):  # for the last of these
        server, command = forkserver.launch((*libraries, "snakemake_executor_plugin_slurm", "warm_snakemake"))
    return command, server


@cache
def _stages() -> tuple[list[str], "subprocess.Popen[bytes] | None"]:
    """Returns the command that runs a stage in a fork of a process that has loaded its libraries, and that process.

    Both processes end when the tests do.
    """
    if shared := os.environ.get(STAGES):
        return shlex.split(shared), None
    server, command = forkserver.launch((*forkserver.LIBRARIES, *forkserver.LIBRARIES_OF_TRAINING))
    return command, server


def share_servers() -> None:
    """Has all processes of pytest-xdist, which this process starts, use the servers of this one."""
    os.environ |= {STAGES: shlex.join(_stages()[0]), SNAKEMAKES: shlex.join(_snakemakes()[0])}


def as_forks(runner: Path | None = None) -> str:
    """Returns a Bash function by which `python STAGE` runs any stage as a fork of that process.

    A runner is a script that gets the stage and its arguments, and runs it.
    """
    return f'python() {{ command {shlex.join([*_stages()[0], *([str(runner)] if runner else [])])} "$@"; }}; '


def stage(name: str, *arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a stage script by hand, as a fork (see test_forkserver.py): most of a run is the loading of libraries."""
    command = [*_stages()[0], str(ROOT / "src" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=900,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
