"""What makes Snakemake itself cheaper changes nothing but the time."""

import inspect
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.common import get_function_params
from snakemake.scheduling.job_scheduler import JobScheduler

from creditflow.workflow import cheaper
from helpers import ROOT, snakemake

#: A workflow that says whether Python searches for garbage while jobs are planned, and when they start.
SEARCHES = f"""
import gc, sys
sys.path.insert(0, {str(ROOT / "src")!r})
from creditflow.workflow import cheaper

cheaper.search_for_no_garbage_yet()

def note(*said):
    with open("said.txt", "a") as file:
        print(*said, file=file)

def planned(wildcards):
    note("planned", gc.isenabled())
    return []

onstart:
    cheaper.search_for_garbage()
    note("starts", gc.isenabled(), gc.get_freeze_count() > 100_000)

rule all:
    input: planned
    output: "ran"
    shell: "touch {{output}}"
"""


def test_garbage_is_searched_for_when_jobs_start_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SEARCHES, encoding="utf-8")
    done = snakemake(tmp_path, timeout=100)
    assert done.returncode == 0, done.stdout
    said = (tmp_path / "said.txt").read_text(encoding="utf-8").splitlines()
    assert set(said[:-1]) == {"planned False"} and said[-1] == "starts True True"


TIMER = "_schedule_reevalutation"


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobScheduler, TIMER, getattr(JobScheduler, TIMER))  # put back afterwards
    cheaper.schedule_by_one_timer()


@pytest.mark.usefixtures("patched")
def test_rounds_that_ask_for_another_share_one_timer() -> None:
    """Snakemake's own method begins a round for each call: a hundred of them, where one is enough."""
    scheduler: Any = SimpleNamespace(_open_jobs=threading.Semaphore(0))
    before = threading.active_count()
    for _ in range(100):
        getattr(JobScheduler, TIMER)(scheduler, 0.2)
    assert threading.active_count() == before + 1
    assert scheduler._open_jobs.acquire(timeout=20)
    assert not scheduler._open_jobs.acquire(timeout=0.4)
    getattr(JobScheduler, TIMER)(scheduler, 0.01)  # the next round asks anew
    assert scheduler._open_jobs.acquire(timeout=20)


def test_parameters_of_functions_are_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_attempt(wildcards: Any, attempt: int) -> str:
        return f"{wildcards}{attempt}"

    rule = SimpleNamespace(
        input=["a", with_attempt],
        output=["b"],
        params=[lambda wildcards, output: output, 3],
        log=[],
        resources={"mem_mb": SimpleNamespace(_evaluator=with_attempt), "threads": 1},
        benchmark=None,
    )
    expected = {function: list(inspect.signature(function).parameters) for function in (with_attempt, rule.params[0])}
    cheaper.note_signatures([rule])
    monkeypatch.setattr(inspect, "signature", None)
    for function, names in expected.items():
        assert list(get_function_params(function)) == names


SNAKEFILE = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from creditflow.workflow import cheaper

cheaper.schedule_by_one_timer()

rule all:
    input: expand("{{n}}.txt", n=range(3))

rule one:
    output: "{{n}}.txt"
    shell: "touch {{output}}"
"""


def test_the_limit_of_jobs_in_a_time_still_holds(tmp_path: Path) -> None:
    """Only the timer can begin the round in which the second and the third job start."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    start = time.monotonic()
    done = snakemake(tmp_path, "--max-jobs-per-timespan", "1/1s", timeout=100)
    assert done.returncode == 0, done.stdout
    assert len(list(tmp_path.glob("*.txt"))) == 3 and time.monotonic() - start > 2
