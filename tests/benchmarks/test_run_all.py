"""`make bench`: its scripts are there, its tables have their places on the page, and a part of them can be renewed."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs/measurements.md"
TABLE = re.compile(r"<!-- table: bench (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


@pytest.fixture(scope="module")
def run_all() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_run_all", BENCHMARKS / "run_all.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_every_benchmark_has_a_script_and_a_table(run_all: ModuleType) -> None:
    names = set(run_all.BENCHMARKS)
    assert [name for name in names if not (BENCHMARKS / f"{name}.py").is_file()] == []
    assert {name for name, _ in TABLE.findall(PAGE.read_text(encoding="utf-8"))} == names
    assert set(yaml.safe_load((BENCHMARKS / "limits.yaml").read_text(encoding="utf-8"))) <= names


def test_only_tables_of_what_ran_are_written(
    run_all: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark says 2 / 4 / 3; the median of the three is 3, above a limit of at least 2."""
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    said = iter((2.0, 4.0, 3.0))

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[1].endswith("start_up.py")
        return subprocess.CompletedProcess(command, 0, f"...\n{json.dumps({'stage_over_fork': next(said)})}\n")

    monkeypatch.setattr(run_all.subprocess, "run", run)
    options = ["--only", "start_up", "--output", str(tmp_path), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["run_all.py", *options])
    run_all.main()
    before, after = (dict(TABLE.findall(path.read_text(encoding="utf-8"))) for path in (PAGE, page))
    assert {name for name in before if before[name] != after[name]} == {"start_up"}
    row, machine = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in after["start_up"].splitlines()[2:]
    )
    assert row == ["stage_over_fork", "3", "2", "4", "least 2", "yes"]
    assert machine[0] == "measured on" and "PyTorch" in machine[1]
    assert TABLE.sub("", page.read_text(encoding="utf-8")) == TABLE.sub("", PAGE.read_text(encoding="utf-8"))
