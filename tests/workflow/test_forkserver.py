"""Stages in forks of a process that has loaded their libraries; whoever runs them sees no difference."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from creditflow.core.run_memory import VARIABLE
from creditflow.workflow import forkserver, layout
from helpers import ROOT

STAGE = """
import json, os, signal, sys, threading, time
from pathlib import Path
import neighbour

def stopped(number, frame):
    print("stopped by", number)
    sys.exit(143)

what, *rest = sys.argv[1:]
if what == "tell":
    seen = [sys.argv, os.getcwd(), os.environ["A_VARIABLE"], __name__, sys.stdin.read()]
    seen += [sorted(sys.modules), threading.active_count()]
    print(json.dumps(seen))
    print("an error", file=sys.stderr)
elif what == "exit":
    sys.exit(json.loads(rest[0]))
elif what == "raise":
    raise ValueError("of this kind")
elif what == "signal":
    os.kill(os.getpid(), int(rest[0]))
elif what == "wait":
    signal.signal(signal.SIGTERM, stopped)
    beats = Path(rest[0])
    beats.touch()
    try:
        while True:
            beats.open("a").write(".")
            time.sleep(0.01)
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(130)
"""


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder, with ' in its name"
    folder.mkdir()
    (folder / "neighbour.py").touch()
    (folder / "stage.py").write_text(STAGE, encoding="utf-8")
    return folder / "stage.py"


Pair = tuple["subprocess.Popen[bytes]", list[str]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A server, and the command that runs a stage in a fork of it."""
    process, command = forkserver.launch(["decimal"])
    with process:
        yield process, command


@pytest.fixture
def server(pair: Pair) -> "subprocess.Popen[bytes]":
    return pair[0]


@pytest.fixture
def client(pair: Pair) -> list[str]:
    return pair[1]


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(command: list[str], *arguments: str, **options: object) -> tuple[int, str, str]:
    options = {"capture_output": True, "text": True, "timeout": 120} | options
    done = subprocess.run([*command, *arguments], check=False, **options)  # type: ignore[call-overload]
    return done.returncode, done.stdout, done.stderr


def test_a_stage_sees_what_it_would_see_as_a_process_of_its_own(stage: Path, client: list[str]) -> None:
    options = {"cwd": stage.parent.parent, "env": os.environ | {"A_VARIABLE": "ä\n'"}, "input": "some\ninput"}
    by_server = run(client, str(stage), "tell", "an 'argument", **options)
    by_python = run([sys.executable], str(stage), "tell", "an 'argument", **options)
    (status, said, errors), expected = by_server, json.loads(by_python[1])
    got = json.loads(said)
    assert (status, errors) == (by_python[0], by_python[2])
    assert got[:5] + got[6:] == expected[:5] + expected[6:]
    assert "decimal" in got[5] and "decimal" not in expected[5]
    assert not any(
        name.startswith("creditflow") for name in got[5]
    )  # jobs run the code that is on disk when they start


def test_forks_share_a_private_memory_that_ends_with_the_run(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text("import os; print(os.environ['CREDITFLOW_RUN_MEMORY'])\n", encoding="utf-8")
    process, client = forkserver.launch([])
    with process:
        memory = Path(run(client, str(script))[1].strip())
        assert memory.is_dir() and memory.parent.stat().st_mode & 0o077 == 0
        assert run(client, str(script))[1].strip() == str(memory) and VARIABLE == "CREDITFLOW_RUN_MEMORY"
    assert not memory.exists()


@pytest.mark.parametrize(
    "arguments", [("exit", "0"), ("exit", "3"), ("exit", "null"), ("exit", '"a message"'), ("raise",)]
)
def test_it_ends_as_it_would(stage: Path, client: list[str], arguments: tuple[str, ...]) -> None:
    by_server, by_python = run(client, str(stage), *arguments), run([sys.executable], str(stage), *arguments)
    assert by_server[:2] == by_python[:2]
    assert by_server[2].splitlines()[-1:] == by_python[2].splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_that_kills_it_kills_the_client(stage: Path, client: list[str], number: signal.Signals) -> None:
    assert run(client, str(stage), "signal", str(int(number)))[0] == -number


@pytest.fixture
def waiting(tmp_path: Path, stage: Path, client: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A client whose stage runs for ever, and writes to `beats`."""
    command = [*client, str(stage), "wait", str(tmp_path / "beats")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        wait_for((tmp_path / "beats").exists)
        yield process
        process.kill()


def is_over(beats: Path) -> bool:
    before = beats.stat().st_size
    time.sleep(0.2)
    return beats.stat().st_size == before


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGTERM, 143, "stopped by 15\n"), (signal.SIGINT, 130, "interrupted\n")]
)
def test_signals_to_the_client_are_the_stages(
    waiting: "subprocess.Popen[str]", number: signal.Signals, status: int, said: str
) -> None:
    waiting.send_signal(number)
    assert waiting.communicate(timeout=60) == (said, "")
    assert waiting.returncode == status


def test_a_killed_client_takes_its_stage_along(tmp_path: Path, waiting: "subprocess.Popen[str]") -> None:
    waiting.kill()
    wait_for(lambda: is_over(tmp_path / "beats"))


def test_a_killed_server_takes_all_stages_along_and_clients_say_so(
    tmp_path: Path, server: "subprocess.Popen[bytes]", waiting: "subprocess.Popen[str]"
) -> None:
    server.kill()
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert errors.startswith("error: the process that jobs are forked from was killed") and errors.count("\n") == 1
    assert is_over(tmp_path / "beats")


def test_without_its_workflow_the_server_waits_for_what_runs_and_starts_nothing(
    tmp_path: Path, stage: Path, server: "subprocess.Popen[bytes]", client: list[str], waiting: "subprocess.Popen[str]"
) -> None:
    assert server.stdin
    server.stdin.close()
    assert run(client, str(stage), "exit", "3") == (3, "", "")  # by an interpreter of its own
    assert server.poll() is None and not is_over(tmp_path / "beats")
    waiting.terminate()
    assert waiting.wait(timeout=60) == 143
    assert server.wait(timeout=60) == 0
    assert not Path(client[-1]).parent.exists()


@pytest.fixture
def early(
    server: "subprocess.Popen[bytes]", client: list[str], stage: Path, tmp_path: Path
) -> Iterator["subprocess.Popen[str]"]:
    """A client that the server does not serve yet."""
    server.send_signal(signal.SIGSTOP)
    command = [*client, str(stage), "wait", str(tmp_path / "beats")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        wait_for(
            lambda: (
                "sock"
                in " ".join(
                    str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").glob("*") if path.is_symlink()
                )
            )
        )
        time.sleep(0.2)
        yield process
        process.kill()


def test_a_signal_that_comes_before_the_fork_is_not_lost(
    server: "subprocess.Popen[bytes]", early: "subprocess.Popen[str]"
) -> None:
    early.send_signal(signal.SIGINT)
    server.send_signal(signal.SIGCONT)
    early.communicate(timeout=60)
    assert early.returncode in (130, -signal.SIGINT)  # in the stage, or in what comes before it


@pytest.mark.parametrize("how", ["killed", "left"])
def test_whom_the_server_does_not_come_to_serve_runs_by_itself(
    how: str, server: "subprocess.Popen[bytes]", early: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    if how == "killed":
        server.kill()
    elif server.stdin:
        server.stdin.close()
        server.send_signal(signal.SIGCONT)
    wait_for((tmp_path / "beats").exists)
    early.terminate()
    assert early.communicate(timeout=60) == ("stopped by 15\n", "")
    assert early.returncode == 143


def test_a_signal_to_all_ends_stages_as_it_would(
    server: "subprocess.Popen[bytes]", waiting: "subprocess.Popen[str]"
) -> None:
    server.terminate()  # as a scheduler does to all processes of an allocation
    waiting.terminate()
    assert waiting.communicate(timeout=60) == ("stopped by 15\n", "")
    assert waiting.returncode == 143


def test_without_a_place_for_a_socket_there_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    for folder in (deep, tmp_path / "is not there"):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert forkserver.start(layout.script) == ""
    assert not list(deep.iterdir())


def test_forked_stages_are_rules_of_the_workflow() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    for name in forkserver.STAGES:
        assert f"\nrule {name}:\n" in f"\n{rules}" and f'script=layout.script("{name}")' in rules


def test_only_those_stages_are_sent_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "LIBRARIES", ())
    monkeypatch.chdir(ROOT)
    prefix = forkserver.start(layout.script)
    with forkserver._servers.pop() as server:  # which closes its standard input, and so ends it
        assert server.stdin
    script = f'{prefix} set -x; python src/attack.py "a  b"; python src/fetch.py; python -c "pass"'
    (tmp_path / "python").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, encoding="utf-8", env=environment, timeout=60, check=True
    )
    commands = [line for line in done.stderr.splitlines() if line.startswith("+ command")]
    assert "client.py" in commands[0] and commands[0].endswith("src/attack.py 'a  b'")
    assert commands[1:] == ["+ command python src/fetch.py", "+ command python -c pass"]
