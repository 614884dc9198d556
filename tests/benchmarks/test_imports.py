"""The benchmarks can be started: they run where creditflow is not installed, and what they import exists."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers import ROOT

SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def imports(tree: ast.Module) -> list[ast.ImportFrom]:
    """Returns all `from ... import ...` of a file."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module is not None]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_of_creditflow_exists(script: Path) -> None:
    """A name that moved to another module would end the benchmark at its first line."""
    for node in imports(ast.parse(script.read_text(encoding="utf-8"))):
        if node.module is not None and node.module.partition(".")[0] == "creditflow":
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"), ast.unparse(node)


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.stem[0] != "_"], ids=lambda path: path.stem)
def test_a_benchmark_finds_creditflow_before_it_imports_it(script: Path) -> None:
    """The helpers beside the benchmarks import creditflow, too: they stand below the line that says where it lies."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    needed = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    lines = [node.lineno for node in needed if (node.module or "").startswith(("creditflow", "_"))]
    paths = [node.lineno for node in tree.body if ast.unparse(node).startswith("sys.path.insert(")]
    assert not [line for line in lines if not paths or line < paths[0]]
