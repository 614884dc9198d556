"""What the workflow knows and checks of the Snakemake that reads it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from creditflow.core.errors import UserError
from creditflow.workflow import forkserver, layout, session
from creditflow.workflow.experiments import Experiments
from creditflow.workflow.session import Session
from helpers import ROOT


def workflow(*, main: bool = True, module: bool = False, methods: tuple[str, ...] = ()) -> Any:
    """As much of Snakemake's workflow as a session looks at."""
    return SimpleNamespace(
        is_main_process=main,
        modifier=SimpleNamespace(is_main_snakefile=lambda: not module),
        rules=[SimpleNamespace(name="all"), SimpleNamespace(name="attack")],
        deployment_settings=SimpleNamespace(deployment_method=set(methods)),
        global_resources={},
        touch=False,
    )


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Begins a session in an empty folder with a command line; environment and log handlers are as before later."""
    monkeypatch.chdir(tmp_path)
    environment, handlers = dict(os.environ), list(logger.handlers)
    os.environ.pop("APPTAINER_BIND", None)

    def begin(*arguments: str, **properties: Any) -> Session:
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/snakemake", *arguments])
        return Session(workflow(**properties))

    yield begin
    os.environ.clear()
    os.environ.update(environment)
    logger.handlers[:] = handlers


@pytest.mark.parametrize("version", ["10.0.0", "11.2"])
def test_a_later_major_version_of_snakemake_is_refused_in_one_line(
    version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        session.check_version(version)
    message = capsys.readouterr().err
    assert caught.value.code == 2
    assert message.startswith("error: this workflow needs Snakemake 9.20 or newer, but below 10, not ")
    assert message.count("\n") == 1
    session.check_version("9.99.9")
    assert '"snakemake>=9.20,<10"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_users_mistake_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(what: str) -> None:
        raise UserError(f"{what} is wrong; mend it")

    with pytest.raises(SystemExit) as caught:
        session.explained(fail, "this")
    assert (caught.value.code, capsys.readouterr().err) == (2, "error: this is wrong; mend it\n")
    assert session.explained(max, 1, 2) == 2


def test_options_come_from_the_command_line_and_its_profile(begun: Any) -> None:
    assert begun("-n", "--cores", "2", "quick", "all").targets == ["quick", "all"]
    Path("profiles/default").mkdir(parents=True)
    Path("profiles/default/profile.yaml").write_text("executor: slurm\ndry-run: true\n", encoding="utf-8")
    found = begun("--cores", "2", "quick")
    assert found.options.executor == "slurm" and found.is_dry
    assert not begun("--cores", "2", "--workflow-profile", "none").is_dry


@pytest.mark.parametrize("program", ["/usr/bin/pytest", "/opt/snakemaker"])
def test_without_a_command_line_of_snakemake_nothing_is_to_be_made(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "quick"])
    options = session.command_line(True)
    assert options.dryrun and not options.targets
    monkeypatch.setattr(sys, "argv", ["/usr/bin/snakemake", "--cores", "1", "quick"])
    assert session.command_line(False).dryrun and not session.command_line(True).dryrun


def test_stages_run_with_this_python_and_keep_caches_in_the_folder(begun: Any, tmp_path: Path) -> None:
    begun()
    assert os.environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    for variable in ("XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR"):
        assert Path(os.environ[variable]).is_relative_to(tmp_path / ".snakemake/cache")


def test_targets_are_checked_once_and_not_within_a_module(begun: Any, capsys: pytest.CaptureFixture[str]) -> None:
    experiments = Experiments({}, {"mine": "mine.yaml: rules: unknown rule 'x'"})
    for target, message in [("atack", "did you mean 'attack'"), ("mine", "mine.yaml: rules: unknown rule 'x'")]:
        with pytest.raises(SystemExit):
            begun(target).check_targets(experiments, "mine")
        assert message in capsys.readouterr().err
        begun(target, module=True).check_targets(experiments, "mine")
        begun(target, main=False).check_targets(experiments, "mine")
    begun("attack").check_targets(experiments, "mine")
    begun(main=False).warn(["not twice"])
    begun().warn(["something is odd"])
    assert capsys.readouterr().err == "warning: something is odd\n"


def test_a_module_has_the_clones_configuration_but_for_what_its_user_says(begun: Any) -> None:
    Path("config").mkdir()
    Path("config/config.yaml").write_text("of: the user's own workflow\n", encoding="utf-8")
    assert begun().config_file == Path("config/config.yaml")
    config = {"default_experiment": "mine", "data": {"max_unreadable": 7}}
    begun(module=True).complete(config)
    assert config["default_experiment"] == "mine" and config["device"] == "auto"
    assert config["data"]["max_unreadable"] == 7 and "search_paths" in config["data"]
    config = {}
    begun().complete(config)
    assert config == {}


CONFIG = {"data": {"search_paths": []}, "container": {"flavour": "cpu"}}


def test_containers_see_the_clone_where_it_is_another_folder(begun: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun("-n").check_machine(Path("image.sif"), CONFIG)
    assert f"{layout.CLONE}:{layout.CLONE}:ro" in os.environ["APPTAINER_BIND"].split(",")
    monkeypatch.setenv("APPTAINER_BIND", "")
    monkeypatch.chdir(layout.CLONE)
    monkeypatch.setattr(session.locks, "release_dead_locks", lambda folder: None)
    begun("-n").check_machine(Path("image.sif"), CONFIG)
    assert str(layout.CLONE) not in os.environ["APPTAINER_BIND"]


def test_slurm_is_looked_for_before_jobs_are_sent_there(
    begun: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = begun("--cores", "1", "--executor", "slurm", "quick")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit):
        found.check_machine(Path("image.sif"), CONFIG)
    assert "error: the slurm executor needs sbatch, squeue, scancel" in capsys.readouterr().err
    begun("-n", "--executor", "slurm", "quick").check_machine(Path("image.sif"), CONFIG)


@pytest.mark.parametrize(
    ("jobs", "options", "methods", "starts"),
    [
        (["attack"] * forkserver.MIN_JOBS, [], (), True),
        (["attack", "finetune"] * (forkserver.MIN_JOBS // 2), [], (), True),
        (["attack"] * (forkserver.MIN_JOBS - 1) + ["fetch"] * 9, [], (), False),
        (["attack"] * forkserver.MIN_JOBS, ["--executor", "slurm"], (), False),
        (["attack"] * forkserver.MIN_JOBS, [], ("APPTAINER",), False),
    ],
)
def test_a_server_of_forks_starts_for_many_jobs_on_this_machine(
    begun: Any,
    jobs: list[str],
    options: list[str],
    methods: tuple[str, ...],
    starts: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from snakemake.shell import shell

    if sys.platform != "linux":
        pytest.skip("forks are for Linux")
    prefixes: list[str] = []
    monkeypatch.setattr(shell, "prefix", prefixes.append)
    monkeypatch.setattr(shell, "get_executable", lambda: "/bin/bash")
    monkeypatch.setattr(forkserver, "start", lambda script, trains: f"python() {{ {script('attack')} {trains}; }}")
    found = begun("--cores", "1", *options, "quick", methods=methods)
    found.share_start_up([SimpleNamespace(input=[layout.script(name), "results/x.json"]) for name in jobs])
    trains = "finetune" in jobs
    expected = [f"set -euo pipefail; python() {{{{ {layout.CLONE}/src/attack.py {trains}; }}}}"]
    assert prefixes == (expected if starts else [])


def test_failures_are_explained_once_whatever_snakemake_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.log").write_text("error: it is broken; mend it\n", encoding="utf-8")
    before = list(logger.handlers)
    for is_module in (False, True):  # the second finds the first
        session.explain_failures(is_module, is_silent=False)
    (handler,) = [handler for handler in logger.handlers if handler not in before]
    said = {"rule_name": "attack", "rule_msg": None, "jobid": 3, "log": [f"{tmp_path}/job.log"], "shellcmd": "x"}
    logger.error("Error in rule attack, jobid: 3", extra={"event": LogEvent.JOB_ERROR} | said)
    logger.removeHandler(handler)
    capsys.readouterr()
    handler.close()
    assert capsys.readouterr().err == f"error: attack {tmp_path}/job.log: it is broken; mend it\n"
