"""What Snakemake leaves out where another Snakefile uses this workflow as a module."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from creditflow.core.files import visible_files


def call_at_start(workflow: Any, begin: Callable[[], None]) -> None:
    """Has Snakemake call a function before the first job.

    By itself Snakemake calls the `onstart` of the main Snakefile alone. That one is still called, wherever it stands.

    Args:
        workflow: Snakemake's object of this name, while it reads the module.
        begin: the function.
    """
    register = workflow.onstart

    def first_begin(function: Callable[..., Any]) -> Callable[..., Any]:
        def both(log: Any) -> None:
            begin()
            function(log)

        return both

    def register_both(function: Callable[..., Any]) -> None:
        register(function)
        if workflow.modifier.is_main_snakefile():
            workflow._onstart = first_begin(function)

    workflow.onstart = register_both
    workflow._onstart = first_begin(workflow._onstart)


def by_script(jobs: Iterable[Any], folder: Path) -> list[tuple[Any, str]]:
    """Returns the jobs that run a script of a folder, each with its script, whatever their rules are called.

    In a module the others are those of the main Snakefile.
    """
    scripts = set(map(str, visible_files(folder, "*.py")))
    return [(job, path) for job in jobs for path in map(str, job.input) if path in scripts]
