"""The pinned environments agree with each other, with pyproject.toml and with the hooks, and are verified."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from creditflow.core.files import file_sha256, sha256
from helpers import ROOT, stage
from scripts import LOCKS, entries, module_from

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


RUNTIME = LOCKS[:3]
BROUGHT_BY_TORCH = re.compile("nvidia-|cuda-|triton")


def pins(*names: str) -> dict[str, str]:
    """{name: version} of what these locks install on this platform."""
    requirements = [Requirement(entry.partition("\\")[0]) for name in names for entry in entries(name)]
    wanted = [each for each in requirements if each.marker is None or each.marker.evaluate()]
    return {each.name: str(each.specifier).removeprefix("==") for each in wanted}


def test_the_lock_satisfies_pyproject() -> None:
    runtime, tools = pins(*RUNTIME), pins("requirements-dev.txt")
    for requirements, locked in (
        (PROJECT["project"]["dependencies"], runtime),
        (PROJECT["project"]["optional-dependencies"]["workflow"], runtime),
        (PROJECT["dependency-groups"]["dev"], tools),
    ):
        for text in requirements:
            requirement = Requirement(text)
            assert requirement.specifier.contains(locked[requirement.name]), text
    assert not runtime.keys() & tools.keys()


@pytest.mark.parametrize("name", [*LOCKS, "check.txt"])
def test_every_pin_has_hashes(name: str) -> None:
    assert entries(name)
    for entry in entries(name):
        pin, *hashes = entry.split(" \\\n")
        assert re.match(r"[\w.-]+==[\w.]+($| ; )", pin)
        assert hashes and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", each) for each in hashes), entry


def test_torch_and_its_cuda_libraries_are_locked() -> None:
    names = {entry.partition("==")[0] for entry in entries("requirements-torch.txt")}
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13"} <= names
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in names)
    builds = (ROOT / "envs/torch-builds.txt").read_text(encoding="utf-8")
    versions = pins("requirements-torch.txt")
    for line in builds.splitlines():
        if not line.startswith("#"):
            _, name, version = re.fullmatch(r"([0-9a-f]{64})  (\w+)-([\d.]+)\+cpu-\S+\.whl", line).groups()
            assert versions[name] == version, f"{line} is for another version than the lock's; look up its builds anew"


def test_a_changed_lock_of_any_kind_makes_a_new_image() -> None:
    text = (ROOT / "envs/requirements.txt").read_text(encoding="utf-8")
    for name in ("requirements-torch.txt", "requirements-source.txt"):
        assert f"# SHA-256 of {name}: {file_sha256(ROOT / 'envs' / name)}\n" in text


def test_nothing_is_installed_unverified() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = re.findall(r"pip install(?:.*\\\n)*.*", makefile)
    assert installs
    assert all("--require-hashes" in command for command in installs), installs
    assert "envs/install.py" in makefile
    commands = re.findall(
        r'^    +pip\(\[.*"install", (.*)\]', (ROOT / "envs/install.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    # All but one: what a build of torch of one's own needs is not known before.
    assert [command.startswith("*VERIFIED") for command in commands].count(False) == 1 < len(commands)


INDEX_BUILD, OTHER_BUILD = "torch-2.0-cp311-cp311-linux.whl", "torch-2.0+cpu-cp311-cp311-linux.whl"


@pytest.mark.parametrize(
    ("build", "builds", "remark", "last"),
    [
        (INDEX_BUILD, "", None, f"nvidia-cuda==1.0 ; x \\\n    --hash=sha256:{'c' * 64}\n"),
        (OTHER_BUILD, f"{sha256(OTHER_BUILD.encode())}  {OTHER_BUILD}\n", None, "install torch==2.0+cpu"),
        (OTHER_BUILD, "", f"warning: {OTHER_BUILD} is not verified: ", "install torch==2.0+cpu"),
    ],
)
def test_a_build_of_torch_is_verified_or_one_line_says_so(
    build: str,
    builds: str,
    remark: str | None,
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install = module_from("envs/install.py")
    monkeypatch.setattr(install, "ENVS", tmp_path)
    pinned = f"torch==2.0 \\\n    --hash=sha256:{sha256(INDEX_BUILD.encode())}\n"
    brought = f"nvidia-cuda==1.0 ; x \\\n    --hash=sha256:{'c' * 64}\n"
    (tmp_path / "requirements-torch.txt").write_text(f"# comment\n{brought}{pinned}")
    (tmp_path / "torch-builds.txt").write_text(builds)
    names = ("a.b-c", "numpy", "pip", "setuptools", "zipp")
    locked = [f"{name}==1 ; x \\\n    --hash=sha256:{'d' * 64}\n" for name in names]
    (tmp_path / "requirements.txt").write_text("# comment\n" + "".join(locked))
    commands, wanted = [], {}

    def pip(arguments: list[str], options: list[str]) -> None:
        assert "--find-links=/wheels" in options
        assert ("--no-compile" in options) == (arguments[0] == "install")
        commands.append(" ".join(arguments))
        if arguments[0] == "download":
            folder = next(each.removeprefix("--dest=") for each in arguments if each.startswith("--dest="))
            Path(folder, build).write_text(build, encoding="utf-8")
            assert arguments[-1] == "torch==2.0"
        elif "-r" in arguments and Path(arguments[-1]).parent != tmp_path:
            wanted[Path(arguments[-1]).name] = Path(arguments[-1]).read_text(encoding="utf-8")

    monkeypatch.setattr(install, "pip", pip)
    install.main(["--no-compile", "--find-links=/wheels"])
    unverified = [command for command in commands if "--no-deps" not in command]
    assert unverified == ([last] if last.startswith("install") else [])
    # Nothing runs beside pip and setuptools, and what torch brings comes when all else is there.
    assert wanted.pop("installers.txt") == locked.pop(2) + locked.pop(2) and commands[0].endswith("installers.txt")
    assert commands[-1].endswith("requirements-source.txt")
    assert commands[-2] == last or (wanted.pop("brought.txt") == last and commands[-2].endswith("brought.txt"))
    version = build.split("-")[1]
    assert wanted.pop("builds.txt") == f"torch=={version} --hash=sha256:{sha256(build.encode())}\n"
    assert sorted("".join(wanted.values()).splitlines()) == sorted("".join(locked).splitlines()) and len(wanted) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == (1 if remark else 0)
    assert said.startswith(remark or "") and (sha256(build.encode()) in said) == bool(remark)


def test_conda_and_pip_install_the_same() -> None:
    text = (ROOT / "envs/environment.yaml").read_text(encoding="utf-8")
    assert "pip verifies no hashes here" in text
    environment = yaml.safe_load(text)
    (listed,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    locked = {entry.partition("\n")[0].removesuffix("\\").strip() for name in RUNTIME for entry in entries(name)}
    assert set(listed) == {line for line in locked if not BROUGHT_BY_TORCH.match(line)}
    (python,) = [
        entry for entry in environment["dependencies"] if isinstance(entry, str) and entry.startswith("python=")
    ]
    assert python.removeprefix("python=") in PROJECT["project"]["requires-python"]


def test_what_runs_here_is_what_is_locked() -> None:
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--all"], capture_output=True, encoding="utf-8", check=True
    ).stdout
    lines = [line.partition("==") for line in frozen.split()]
    installed = {name.lower().replace("_", "-"): version.partition("+")[0] for name, _, version in lines}
    for name, version in pins(*LOCKS).items():
        if not BROUGHT_BY_TORCH.match(name) or name in installed:  # torch's build for CPUs brings nothing
            assert installed.get(name) == version, name


def test_pre_commit_uses_the_locked_tools() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    tools = pins("requirements-dev.txt")
    used = set()
    for repo in hooks["repos"]:
        # Another repository would be named by its commit. None is needed: the tools are locked.
        assert repo["repo"] == "local" or re.fullmatch("[0-9a-f]{40}", repo["rev"])
        for hook in repo["hooks"]:
            program = hook["entry"].split()[0].removeprefix(".venv/bin/")
            assert hook["language"] == "system" and program in tools
            used.add(program)
    assert used == {"ruff", "snakefmt", "mypy"}


def test_actions_are_named_by_commit() -> None:
    for path in (ROOT / ".github/workflows").iterdir():
        for action in re.findall(r"uses:(.*)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r" [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*", action), action


def test_torchvision_imports_beside_this_torch() -> None:
    code = (
        "from creditflow.compute.torchvision_import import torchvision\n"
        "print(torchvision.models.resnet18(num_classes=3).fc.out_features)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, encoding="utf-8", check=False
    )
    assert done.stdout.strip() == "3", done.stderr


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, creditflow, creditflow.workflow.loading\nprint('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_every_stage_explains_itself() -> None:
    scripts = sorted(path.stem for path in (ROOT / "src").glob("*.py"))
    assert len(scripts) == 23
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
    (job,) = yaml.safe_load((ROOT / ".github/workflows/gate.yaml").read_text(encoding="utf-8"))["jobs"].values()
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert ".ci/run" in commands
    assert all(
        (ROOT / path).is_file()
        for path in re.findall(r"\.ci/[\w-]+", commands + (ROOT / ".ci/run").read_text(encoding="utf-8"))
    )
