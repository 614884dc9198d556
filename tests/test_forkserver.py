"""Stages in forks of a process that has loaded their libraries: to whoever runs them, they are the processes they would be."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from creditflow import forkserver
from helpers import interruptible

HERE = Path(forkserver.__file__).parent

STAGE = """
import json, os, signal, sys, threading, time
from pathlib import Path
import neighbour

def stopped(number, frame):
    print("stopped by", number)
    sys.exit(143)

what, *rest = sys.argv[1:]
if what == "tell":
    seen = [sys.argv, os.getcwd(), os.environ["A_VARIABLE"], __name__, sys.stdin.read(), sorted(sys.modules), threading.active_count()]
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
    (folder / "stage.py").write_text(STAGE)
    return folder / "stage.py"


@pytest.fixture
def server(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    (tmp_path / "server").mkdir()
    command = [sys.executable, HERE / "server.py", tmp_path / "server/socket", "decimal"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        wait_for((tmp_path / "server/socket").exists)
        yield process


def client(tmp_path: Path) -> list[str]:
    return [sys.executable, "-I", "-S", str(HERE / "client.py"), str(tmp_path / "server/socket")]


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(command: list[str], *arguments: str, **options: object) -> tuple[int, str, str]:
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]
    return done.returncode, done.stdout, done.stderr


def test_a_stage_sees_what_it_would_see_as_a_process_of_its_own(tmp_path: Path, stage: Path, server: object) -> None:
    options = {"cwd": stage.parent.parent, "env": os.environ | {"A_VARIABLE": "ä\n'"}, "input": "some\ninput"}
    by_server = run(client(tmp_path), str(stage), "tell", "an 'argument", **options)
    by_python = run([sys.executable], str(stage), "tell", "an 'argument", **options)
    (status, said, errors), expected = by_server, json.loads(by_python[1])
    got = json.loads(said)
    assert (status, errors) == (by_python[0], by_python[2])
    assert got[:5] + got[6:] == expected[:5] + expected[6:]
    assert "decimal" in got[5] and "decimal" not in expected[5]
    assert not any(name.startswith("creditflow") for name in got[5])  # jobs run the code that is on disk when they start


@pytest.mark.parametrize("arguments", [("exit", "0"), ("exit", "3"), ("exit", "null"), ("exit", '"a message"'), ("raise",)])
def test_it_ends_as_it_would(tmp_path: Path, stage: Path, server: object, arguments: tuple[str, ...]) -> None:
    by_server, by_python = run(client(tmp_path), str(stage), *arguments), run([sys.executable], str(stage), *arguments)
    assert by_server[:2] == by_python[:2]
    assert by_server[2].splitlines()[-1:] == by_python[2].splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_that_kills_it_kills_the_client(tmp_path: Path, stage: Path, server: object, number: signal.Signals) -> None:
    assert run(client(tmp_path), str(stage), "signal", str(int(number)))[0] == -number


@pytest.fixture
def waiting(tmp_path: Path, stage: Path, server: object) -> Iterator["subprocess.Popen[str]"]:
    """A client whose stage runs for ever, and writes to `beats`."""
    command = [*client(tmp_path), str(stage), "wait", str(tmp_path / "beats")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible) as process:
        wait_for((tmp_path / "beats").exists)
        yield process


def is_over(beats: Path) -> bool:
    before = beats.stat().st_size
    time.sleep(0.2)
    return beats.stat().st_size == before


@pytest.mark.parametrize(("number", "status", "said"), [(signal.SIGTERM, 143, "stopped by 15\n"), (signal.SIGINT, 130, "interrupted\n")])
def test_signals_to_the_client_are_the_stages(
    tmp_path: Path, waiting: "subprocess.Popen[str]", number: signal.Signals, status: int, said: str
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
    tmp_path: Path, stage: Path, server: "subprocess.Popen[bytes]", waiting: "subprocess.Popen[str]"
) -> None:
    assert server.stdin
    server.stdin.close()
    status, _, errors = run(client(tmp_path), str(stage), "exit", "3")  # python itself runs it
    assert (status, errors) == (3, "")
    assert server.poll() is None and not is_over(tmp_path / "beats")
    waiting.terminate()
    assert waiting.wait(timeout=60) == 143
    assert server.wait(timeout=60) == 0
    assert not (tmp_path / "server").exists()


def test_only_short_stages_are_sent_there(tmp_path: Path) -> None:
    prefix = forkserver.start()
    if pipe := forkserver._servers.pop().stdin:
        pipe.close()
    script = f'{prefix} set -x; python src/attack.py "a  b"; python src/finetune.py; python -c "pass"'
    (tmp_path / "python").write_text("#!/bin/sh\n")
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=60, check=True)
    commands = [line for line in done.stderr.splitlines() if line.startswith("+ command")]
    assert [("client.py" in line, line.split("src/")[-1] if "src/" in line else "") for line in commands][1:] == [
        (False, "finetune.py"),
        (False, ""),
    ]
    assert "client.py" in commands[0] and commands[0].endswith("src/attack.py 'a  b'")
