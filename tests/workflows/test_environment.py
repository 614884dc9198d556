"""The pinned environments agree with each other, with pyproject.toml and with the pre-commit hooks."""

import re
import subprocess
import sys
import tomllib

import yaml
from packaging.requirements import Requirement

from helpers import ROOT, stage

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "envs" / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_the_lock_satisfies_pyproject() -> None:
    runtime, tools = pins("requirements.txt"), pins("requirements-dev.txt")
    for requirements, locked in (
        (PROJECT["project"]["dependencies"], runtime),
        (PROJECT["dependency-groups"]["dev"], tools),
    ):
        for text in requirements:
            requirement = Requirement(text)
            assert requirement.specifier.contains(locked[requirement.name]), text
    assert not runtime.keys() & tools.keys()


def test_conda_and_pip_install_the_same() -> None:
    environment = yaml.safe_load((ROOT / "envs/environment.yaml").read_text())
    (listed,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert dict(line.split("==") for line in listed) == pins("requirements.txt")
    (python,) = [
        entry for entry in environment["dependencies"] if isinstance(entry, str) and entry.startswith("python=")
    ]
    assert python.removeprefix("python=") in PROJECT["project"]["requires-python"]


def test_what_runs_here_is_what_is_locked() -> None:
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--all"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.partition("==") for line in frozen.split()]
    installed = {name.lower().replace("_", "-"): version.partition("+")[0] for name, _, version in lines}
    for name, version in (pins("requirements.txt") | pins("requirements-dev.txt")).items():
        assert installed.get(name) == version, name


def test_pre_commit_uses_the_same_pins() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    found = {
        re.sub(r".*/", "", repo["repo"]): repo["rev"].removeprefix("v")
        for repo in hooks["repos"]
        if repo["repo"] != "local"
    }
    tools = pins("requirements-dev.txt")
    assert found == {"ruff-pre-commit": tools["ruff"], "snakefmt": tools["snakefmt"]}


def test_torchvision_imports_beside_this_torch() -> None:
    code = (
        "from creditflow.compute.torchvision_import import torchvision\n"
        "print(torchvision.models.resnet18(num_classes=3).fc.out_features)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3", done.stderr


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, creditflow, creditflow.workflow.loading\nprint('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_stage_explains_itself() -> None:
    scripts = sorted(path.stem for path in (ROOT / "src").glob("*.py"))
    assert len(scripts) == 20
    for script in scripts:
        done = stage(script, "--help")
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout


def test_a_wrong_option_ends_in_one_line() -> None:
    for script, arguments, message in [
        ("attack", ["--attack", "pgd"], "the following arguments are required: --model"),
        ("evaluate", ["--model", "nowhere"], "argument --model: nowhere does not exist"),
        ("attack", ["--epsilons", "-1"], "'-1' is not a perturbation size"),
        ("attack", ["--settings", "{"], "'{' is not JSON"),
        ("pretrain", ["--threads", "0"], "'0' is not an integer of at least 1"),
    ]:
        done = stage(script, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_hosted_gate_is_the_gate() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/gate.yaml").read_text())["jobs"].values()
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert ".ci/run" in commands
    assert all(
        (ROOT / path).is_file() for path in re.findall(r"\.ci/[\w-]+", commands + (ROOT / ".ci/run").read_text())
    )
