"""A stage's hash changes with each file that the stage loads, and with no other."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from creditflow.core import plugins
from creditflow.workflow.dependence import PLUMBING, READERS, Library, library_hash
from creditflow.workflow.layout import PLACES
from helpers import ROOT

SOURCE = ROOT / "src"

#: Imports the largest libraries of the stages. Then a fork for each stage imports it, and its plugins after that; it
#: tells which files of creditflow are loaded before the plugins and after them.
LOADER = """
import gc, importlib, json, os, sys
import foolbox, matplotlib.figure, pandas, PIL.Image, pydantic, safetensors.torch, scipy.optimize, scipy.stats, torch
gc.freeze()

def in_fork(stage, plugins):
    reading, writing = os.pipe()
    if os.fork() == 0:
        importlib.import_module(stage)
        before = loaded()
        for plugin in plugins:
            importlib.import_module(plugin)
        with open(writing, "w") as pipe:
            json.dump([before, loaded()], pipe)
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = json.load(pipe)
    os.wait()
    return answer

def loaded():
    places = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "creditflow"]
    return sorted(os.path.relpath(place, sys.path[0]) for place in places)

sys.path.insert(0, sys.argv[1])
print(json.dumps({stage: in_fork(stage, plugins) for stage, plugins in json.load(sys.stdin).items()}))
"""

Used = list[tuple[str, str]]


def declared() -> dict[str, list[tuple[str, str]]]:
    """The kinds of plugins that each rule's `library(...)` names, each with the names it gives or a wildcard."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    calls = re.findall(r'^ +library=library\("(\w+)"(.*?)\),$', text, re.MULTILINE)
    return {stage: re.findall(r'(\w+)="([^"]+)"', arguments) for stage, arguments in calls}


def all_plugins(kinds: list[tuple[str, str]]) -> Used:
    """The plugins of all of a stage's jobs."""
    return [
        (kind, name)
        for kind, names in kinds
        for name in (plugins.names(kind) if names.startswith("{") else names.split())
    ]


STAGES = declared()
USED = {stage: all_plugins(kinds) for stage, kinds in STAGES.items()}


@pytest.fixture(scope="module")
def loaded() -> dict[str, tuple[set[str], set[str]]]:
    """The library's files that Python loads for each stage, without plugins and with all of them, less plumbing."""
    modules = {
        stage: [f"creditflow.{plugins.ROOMS[kind].replace('/', '.')}.{name}" for kind, name in used]
        for stage, used in USED.items()
    }
    command = [sys.executable, "-c", LOADER, str(SOURCE)]
    done = subprocess.run(
        command, input=json.dumps(modules), cwd=ROOT, capture_output=True, encoding="utf-8", timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, list[list[str]]] = json.loads(done.stdout)
    return {stage: (_less_plumbing(before), _less_plumbing(after)) for stage, (before, after) in answer.items()}


def _less_plumbing(paths: list[str]) -> set[str]:
    return {path for path in paths if not path.startswith(PLUMBING)}


def test_every_rule_says_what_it_depends_on() -> None:
    assert set(STAGES) == {place.rule for place in PLACES}


def test_what_a_stage_loads_is_what_it_depends_on(loaded: dict[str, tuple[set[str], set[str]]]) -> None:
    library = Library(SOURCE)
    for stage, (without_plugins, with_plugins) in loaded.items():
        assert without_plugins <= set(library.depends_on(stage, [])), stage
        assert with_plugins <= set(library.depends_on(stage, USED[stage])), stage


def test_a_changed_file_changes_the_hashes_of_the_stages_that_load_it_and_of_no_others(
    loaded: dict[str, tuple[set[str], set[str]]],
) -> None:
    library = Library(SOURCE)
    before = {stage: library.hash(stage, USED[stage]) for stage in STAGES}
    dependent = {stage: library.depends_on(stage, USED[stage]) for stage in STAGES}
    assert len(set(before.values())) == len(STAGES)
    for path in sorted(library.files):
        changed = library.with_text(path, library.text(path) + "\nCHANGED = True\n")
        different = {stage for stage in STAGES if changed.hash(stage, USED[stage]) != before[stage]}
        assert different >= {stage for stage in STAGES if path in loaded[stage][1]}, path
        assert different == {stage for stage in STAGES if path in dependent[stage]}, path
        if path.startswith((*PLUMBING, "creditflow/workflow/")) or path == "creditflow/reporting/export.py":
            assert not different, path


@pytest.mark.parametrize(
    ("path", "changed", "same"),
    [
        (
            "creditflow/attacks/methods/pgd.py",
            [("attack", [("attack", "pgd")])],
            [("attack", [("attack", "square")]), ("evaluate", []), ("make_table", [("table", "table1")])],
        ),
        (
            "creditflow/feedback/rules/frsf.py",
            [("finetune", [("backbone", "lenet5"), ("rule", "frsf")]), ("make_table", [("table", "table1")])],
            [("finetune", [("backbone", "lenet5"), ("rule", "usf")]), ("evaluate", []), ("audit", [])],
        ),
        (
            "creditflow/reporting/collection.py",
            [("collect", []), ("make_table", [("table", "table1")])],
            [("audit", []), ("evaluate", []), ("attack", [("attack", "pgd")])],
        ),
        (
            "creditflow/training/loop.py",
            [("finetune", []), ("pretrain", [])],
            [("evaluate", []), ("attack", []), ("collect", []), ("train_population", [])],
        ),
        (
            "creditflow/reporting/tables/settings/compare.py",
            [("make_table", [("table", "compare")])],
            [("make_table", [("table", "table1")])],
        ),
    ],
)
def test_what_does_not_use_a_file_stays_as_it_is(
    path: str, changed: list[tuple[str, Used]], same: list[tuple[str, Used]]
) -> None:
    library = Library(SOURCE)
    other = library.with_text(path, library.text(path) + "\nCHANGED = True\n")
    for stage, used in changed:
        assert other.hash(stage, used) != library.hash(stage, used), stage
    for stage, used in same:
        assert other.hash(stage, used) == library.hash(stage, used), stage


def test_a_job_may_leave_out_a_folder() -> None:
    library = Library(SOURCE)
    path = "creditflow/retrieval/hyp2.py"
    assert path in library.depends_on("finetune", [])
    assert path not in library.depends_on("finetune", [], ("creditflow/retrieval/",))
    used = [("backbone", "lenet5"), ("rule", "bp")]
    assert library_hash("finetune", used) == library.hash("finetune", used[::-1])
    assert library_hash("finetune", used) != library_hash("finetune", used, ("creditflow/retrieval/",))


@pytest.mark.parametrize("stage", ["evaluate", "encode", "retrieve"])
def test_measuring_clean_models_loads_no_attack(stage: str) -> None:
    assert not [path for path in Library(SOURCE).depends_on(stage, []) if path.startswith("creditflow/attacks/")]


def test_plumbing_and_readers_are_there() -> None:
    for path in (*PLUMBING, *READERS):
        assert (SOURCE / path).exists(), path


def imports(path: Path) -> set[str]:
    """What a file imports of the library, as Python's parser sees it: modules, and names that may be modules."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed"
            modules |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
    return {module for module in modules if module.split(".")[0] == "creditflow"}


@pytest.mark.parametrize("script", [False, True])
def test_imports_are_read_as_pythons_parser_reads_them(script: bool) -> None:
    library = Library(SOURCE)
    for path in [f"{place.rule}.py" for place in PLACES] if script else sorted(library.files):
        expected = {file for module in imports(SOURCE / path) for file in library._run_by(module)}
        assert set(library._imported(path)) >= expected, path
