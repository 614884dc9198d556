"""The package: it builds, installs and works outside the clone, and needs no more than it declares."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

import creditflow
from helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: What `creditflow[workflow]` and the tests bring, and the library must do without.
LEFT_OUT = ("snakemake", "spython", "pygments", "sklearn", "statsmodels", "pytest")
#: What declared packages bring of their own, in exactly the version that they need.
BROUGHT = {"pydantic-core"}

MODEL = """
from torch import nn


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3))
"""

#: Imports every module of the library but those of the workflow, while what the library must do without is away.
IMPORT_ALL = f"""
import importlib, pkgutil, sys

sys.modules |= dict.fromkeys({LEFT_OUT!r})
import creditflow

names = [found.name for found in pkgutil.walk_packages(creditflow.__path__, "creditflow.", onerror=print)]
names = [name for name in names if not name.startswith("creditflow.workflow")]
for name in names:
    importlib.import_module(name)
print(len(names), creditflow.__file__)
"""


def run(*command: str | Path, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Builds an sdist or a wheel with the setuptools that is installed here, as `pip` does without isolation."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(target)!r}))"
    name = run(sys.executable, "-c", code, folder=source).splitlines()[-1]
    return target / name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that is built from the sdist, which is built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    sdist = build("sdist", source, folder)
    (folder / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", sdist, "-C", folder / "unpacked"], check=True)
    (unpacked,) = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder)


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel; its other packages are those of this environment."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    binaries = environment / "bin"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", binaries / "python", *install, wheel, folder=environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return binaries


@pytest.mark.slow
def test_the_wheel_has_the_library_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        facts = f"creditflow-{creditflow.__version__}.dist-info"
        metadata = archive.read(f"{facts}/METADATA").decode()
        programs = archive.read(f"{facts}/entry_points.txt").decode()
    library = [path.relative_to(ROOT / "src") for path in (ROOT / "src/creditflow").rglob("*") if path.is_file()]
    expected = {path.as_posix() for path in library if "__pycache__" not in path.parts and path.name[0] != "."}
    assert {name for name in names if not name.startswith(facts)} == expected
    assert "creditflow = creditflow.instrument.command:main" in programs
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    light = {Requirement(text).name for text in required if "extra ==" not in text}
    assert "torch" in light and not light & {"snakemake", "snakemake-executor-plugin-slurm", "spython", "statsmodels"}
    assert {Requirement(text).name for text in required} >= {"snakemake", "spython"}


@pytest.mark.slow
def test_the_installed_package_works_outside_the_clone(binaries: Path, tmp_path: Path) -> None:
    program = binaries / "creditflow"
    assert run(program, "version", folder=tmp_path).startswith(f"creditflow {creditflow.__version__} (Python ")
    assert re.search(r"^frsf +frSF: ", run(program, "rules", folder=tmp_path), re.MULTILINE)
    (tmp_path / "mine.py").write_text(MODEL, encoding="utf-8")
    images = np.random.default_rng(0).random((12, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(12) % 3)
    said = run(program, "check-gradient", "mine.py:make", "--images", "images.npz", folder=tmp_path)
    assert said.startswith("honest: ")


@pytest.mark.slow
def test_the_library_is_imported_without_the_workflows_packages(binaries: Path, tmp_path: Path) -> None:
    number, place = run(binaries / "python", "-c", IMPORT_ALL, folder=tmp_path).split()
    assert int(number) > 150 and Path(place).is_relative_to(binaries.parent)


def test_the_library_imports_only_what_it_declares() -> None:
    needed = BROUGHT | {_plain(Requirement(text).name) for text in PROJECT["dependencies"]}
    workflow = needed | {_plain(Requirement(text).name) for text in PROJECT["optional-dependencies"]["workflow"]}
    distributions = packages_distributions()
    for path in (ROOT / "src/creditflow").rglob("*.py"):
        allowed = workflow if path.is_relative_to(ROOT / "src/creditflow/workflow") else needed
        for module in _imports(path) - sys.stdlib_module_names - {"creditflow"}:
            provided = {_plain(name) for name in distributions[module]}
            assert provided & allowed or "snakemake" in module, f"{path} imports {module}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imports(path: Path) -> set[str]:
    """The outermost packages that a file imports, anywhere in it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            modules |= {name.name.partition(".")[0] for name in node.names}
    return modules
