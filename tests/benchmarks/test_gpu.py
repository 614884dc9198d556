"""The program for a machine with a GPU, tried out on the CPU: its rows, its tables, and how it reports what fails."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs/measurements.md"
PARTS = ("checks", "rules", "ways", "populations", "attacks", "targets")
TABLE = re.compile(r"<!-- table: (gpu \w+) -->\n(.*?)<!-- end -->", re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with a page and the results of all parts at tiny sizes, and how the program ended."""
    folder = tmp_path_factory.mktemp("gpu")
    page = folder / "measurements.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    options = ["--device", "cpu", "--small", "--threads", "1", "--output", str(folder), "--page", str(page)]
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return folder, subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)


@pytest.mark.slow
def test_every_part_gives_rows_with_numbers(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = ran
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    assert set(content["parts"]) == set(PARTS) and content["machine"]["PyTorch"] != "-"
    skipped = {}
    for part in PARTS:
        for row in content["parts"][part]["rows"]:
            if row["status"] == "skipped":
                skipped[row["name"]] = row["reason"]
                continue
            assert row["status"] == "measured" and row["numbers"], row
            values = [value for value in row["numbers"].values() if isinstance(value, int | float)]
            assert len(values) >= 3 and all(value >= 0 for value in values), row
    assert set(skipped.values()) <= {"a slot has a GPU", "biotorch is not installed"}
    names = " ".join(row["name"] for row in content["parts"]["rules"]["rows"])
    assert all(rule in names for rule in ("usf", "frsf", "brsf", "fa", "dfa", "kp", "wm"))


@pytest.mark.slow
def test_the_tables_stand_in_the_page_and_all_else_stays(
    ran: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    written = (ran[0] / "measurements.md").read_text(encoding="utf-8")
    tables, before = dict(TABLE.findall(written)), PAGE.read_text(encoding="utf-8")
    assert set(tables) == {"gpu machine", *(f"gpu {part}" for part in PARTS)}
    for name, table in tables.items():
        lines = table.strip().splitlines()
        assert len(lines) > 2 and len({line.count("|") for line in lines}) == 1, name
        assert table.strip() in (ran[0] / "gpu.md").read_text(encoding="utf-8")
    assert TABLE.sub("", written) == TABLE.sub("", before)


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program as a module, whose only part is `checks`; the test says what the part does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = loaded("gpu")
    monkeypatch.setattr(module, "HOMES", {"checks": ("part_of_the_test", "run", "checked")})
    monkeypatch.setattr(module, "LIMITS", {"machine": 60, "checks": 60})
    before = signal.getsignal(signal.SIGTERM)
    yield module
    signal.signal(signal.SIGTERM, before)


def run(program: ModuleType, part: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int | str, list[Any]]:
    """Returns how the program ends with this part, and the rows that it wrote."""
    monkeypatch.setitem(sys.modules, "part_of_the_test", SimpleNamespace(run=part))  # type: ignore[arg-type]
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--device", "cpu", "--small", "--only", "checks", "--output", str(folder)]
    )
    ended: int | str = 0
    try:
        program.main()
    except SystemExit as error:
        ended = error.code or 0
    return ended, json.loads((folder / "gpu.json").read_text(encoding="utf-8"))["parts"]["checks"]["rows"]


NUMBERS = {"passed": 1, "failed": 0, "skipped": 0, "seconds": 0.5}


def test_a_row_that_fails_is_reported_with_its_reason_and_ends_nothing(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(options: Any, send: Any) -> None:
        from _gpu_run import SkippedError, measure

        def fails() -> Any:
            raise RuntimeError("CUDA error | an illegal\nmemory access")

        def skips() -> Any:
            raise SkippedError("there is no compiler")

        measure({"first": fails, "second": skips, "third": lambda: NUMBERS}, send)

    ended, rows = run(program, part, tmp_path, monkeypatch)
    assert [row["status"] for row in rows] == ["failed", "skipped", "measured"]
    assert rows[0]["reason"].startswith("RuntimeError: CUDA error") and rows[1]["reason"] == "there is no compiler"
    assert isinstance(ended, str) and "1 failed" in ended and "checks, first: RuntimeError: CUDA error" in ended
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "first: failed, RuntimeError: CUDA error / an illegal" in table and "\n| third " in table


@pytest.mark.parametrize("way", ["hangs", "is killed", "breaks"])
def test_rows_that_never_come_have_failed(
    way: str, program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(options: Any, send: Any) -> None:
        send("plan", ["first", "second", "third"])
        send("row", {"name": "first", "status": "measured", "numbers": NUMBERS})
        if way == "hangs":
            time.sleep(60)
        if way == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("no driver")

    if way == "hangs":
        monkeypatch.setitem(program.LIMITS, "checks", 5.0)  # a busy machine has sent the first row by then
    start = time.monotonic()
    ended, rows = run(program, part, tmp_path, monkeypatch)
    assert time.monotonic() - start < 50
    assert [row["status"] for row in rows] == ["measured", "failed", "failed"] and ended
    reason = {
        "hangs": "it was stopped after ",  # what is left of the 5 s
        "is killed": "the process ended with status -9",
        "breaks": "RuntimeError: no driver",
    }[way]
    assert rows[1]["reason"].startswith(reason) and rows[2]["reason"] == f"not reached: {rows[1]['reason']}", rows


def test_rows_of_an_earlier_run_stay_if_the_machine_is_the_same(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"processor": "a card", "driver": "1", "PyTorch": "2.6", "sizes": "as described"}
    results = program.Results(tmp_path)
    results.begin(facts)
    results.content["parts"]["checks"] = {"rows": [{"name": "one", "status": "measured", "numbers": NUMBERS}]}
    results.write()
    again = program.Results(tmp_path)
    again.begin(facts | {"date": "tomorrow"})
    assert again.content["parts"] == results.content["parts"]
    again.begin(facts | {"driver": "2"})
    assert again.content["parts"] == {}


def test_a_machine_without_a_gpu_is_one_line(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cuda:99", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: --device 'cuda:99': this machine has \d+ CUDA devices"):
        program.main()


def test_whatever_the_library_needs_is_carried_or_commonly_there(program: ModuleType) -> None:
    wheels = loaded("gpu_wheels")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split("[<>=]", dependency)[0] for dependency in project["dependencies"]}
    assert needed - {"typer"} <= {*wheels.NEEDED, *wheels.COMMON}  # typer is for the command line alone
    imported = {{"pyyaml": "yaml", "pillow": "PIL"}.get(name, name) for name in needed} - {"typer", "PIL"}
    assert imported <= set(program.MODULES)
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", package) for package in wheels.pinned())


def test_examples_inside_a_wheel_are_not_carried(tmp_path: Path) -> None:
    kept = {"attack/__init__.py": "x = 1\n", "attack-1.dist-info/METADATA": "Name: attack\n"}
    record = "attack/__init__.py,,\nattack/examples/weights.pt,,\nattack-1.dist-info/RECORD,,\n"
    with zipfile.ZipFile(tmp_path / "old.whl", "w") as wheel:
        for name, text in {**kept, "attack/examples/weights.pt": "large", "attack-1.dist-info/RECORD": record}.items():
            wheel.writestr(name, text)
    loaded("gpu_wheels").slimmed(tmp_path / "old.whl", tmp_path / "new.whl")
    with zipfile.ZipFile(tmp_path / "new.whl") as wheel:
        content = {name: wheel.read(name).decode() for name in wheel.namelist()}
    assert content.pop("attack-1.dist-info/RECORD") == "attack/__init__.py,,\nattack-1.dist-info/RECORD,,\n"
    assert content == kept
