"""The tests of tests/gpu, run by pytest inside `gpu.py`: a row for each test function.

A piece of this part is a file of tests, so that a crash ends no more than its file.
"""

import os
import sys
from collections import defaultdict
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _gpu_run import Options, Row, Send

from creditflow.core.errors import one_line

if find_spec("pytest") is not None:
    import pytest  # here, so that the processes of the pieces, which are forks, need not import it

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests/gpu"
PIECES = tuple(sorted(path.name for path in FOLDER.glob("test_*.py")))


@dataclass
class _Function:
    """A test function: how many of its cases wait, and how those went that ran."""

    waiting: int = 0
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: {"passed": 0, "failed": 0, "skipped": 0})
    reasons: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def row(self, name: str) -> Row:
        numbers = {**self.counts, "seconds": round(self.seconds, 2)}
        if self.counts["failed"]:
            cases = self.reasons["failed"]
            more = f" (and {len(cases) - 1} more)" if len(cases) > 1 else ""
            return {"name": name, "status": "failed", "reason": cases[0] + more, "numbers": numbers}
        if not self.counts["passed"]:
            return {"name": name, "status": "skipped", "reason": self.reasons["skipped"][0], "numbers": numbers}
        return {"name": name, "status": "measured", "numbers": numbers}


class _Reporter:
    """A plugin of pytest that sends the row of a function as soon as its last case has run."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._functions: dict[str, _Function] = {}

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            self._functions.setdefault(_function_of(item.nodeid), _Function()).waiting += 1
        self._send("plan", list(self._functions))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            reason = f"cannot be imported: {_message(report)}"
            self._send("row", {"name": report.nodeid, "status": "failed", "reason": reason})

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = _function_of(report.nodeid)
        function = self._functions[name]
        function.seconds += report.duration
        if report.failed or report.skipped or report.when == "call":
            function.counts[report.outcome] += 1
            if report.outcome != "passed":
                case = report.nodeid.partition("[")[2].removesuffix("]")
                function.reasons[report.outcome].append(f"{case}: {_message(report)}" if case else _message(report))
        if report.when == "teardown":
            function.waiting -= 1
            if not function.waiting:
                self._send("row", function.row(name))


def _function_of(nodeid: str) -> str:
    """Returns `file: function` without cases, in words."""
    path, _, name = nodeid.partition("[")[0].partition("::")
    return f"{Path(path).stem.removeprefix('test_').removesuffix('_on_gpu')}: {name.removeprefix('test_')}".replace(
        "_", " "
    )


def _message(report: Any) -> str:
    """Returns why a case failed or was skipped, in one line."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return one_line(Exception(crash.message if crash else str(report.longrepr)))[:300]


def checks(options: Options, send: Send) -> None:
    """Runs the tests of a file. What pytest prints is added to `checks.log` in the folder of the results."""
    if find_spec("pytest") is None:
        send("row", {"name": "tests marked gpu", "status": "skipped", "reason": "pytest is not installed"})
        return
    os.environ |= {"CREDITFLOW_TEST_DEVICE": options.device, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if options.small:
        os.environ["CREDITFLOW_TEST_CASES"] = "1"
    sys.path.insert(0, str(ROOT / "tests"))
    # tests/conftest.py and what it imports belong to the workflow, which may not be installed here.
    arguments = [
        str(FOLDER / options.piece),
        "-m",
        "gpu",
        f"--confcutdir={FOLDER}",
        f"--rootdir={ROOT}",
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    arguments += ["-p", "no:cacheprovider", "-q", "--tb=short", "-W", "default::UserWarning"]
    with (options.output / "checks.log").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        pytest.main(arguments, plugins=[_Reporter(send)])
