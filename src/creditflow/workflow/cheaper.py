"""Spares Snakemake work that it does again and again, and that nobody needs.

All of this was checked with Snakemake 9.27; 9.20, the oldest version that the workflow takes, has the same names.
docs/scaling.md has the measurements.
"""

import gc
import inspect
import threading
from collections.abc import Callable, Iterable
from typing import Any

#: Seconds between two looks at a young job's memory.
_BENCHMARK_INTERVAL = 2


def search_for_no_garbage_yet() -> None:
    """Has Python put off its search for garbage until `search_for_garbage`.

    While rules are read and jobs are planned, hardly anything becomes garbage, and what is searched becomes ever more.
    """
    gc.disable()


def search_for_garbage() -> None:
    """Has Python search for garbage again, but not among what there is now: jobs that wait are no garbage."""
    gc.freeze()
    gc.enable()


def look_at_memory_rarely() -> None:
    """Has Snakemake look less often at a young job's memory, which slows short jobs; records tell their memory."""
    import snakemake.benchmark

    snakemake.benchmark.BENCHMARK_INTERVAL_SHORT = _BENCHMARK_INTERVAL


def schedule_by_one_timer() -> None:
    """Has Snakemake's scheduler wait for one timer at a time.

    Each round of the scheduler starts a timer of a second, which begins another round. So each round that a job's end
    begins is repeated every second as long as jobs wait, and the rounds become more with each job that ends.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    waiting: set[tuple[int, float]] = set()

    def once(scheduler: Any, delay: float) -> None:
        key = id(scheduler), delay
        if key in waiting:
            return

        def begin_a_round() -> None:
            waiting.discard(key)
            scheduler._open_jobs.release()

        waiting.add(key)
        timer = threading.Timer(delay, begin_a_round)
        timer.daemon = True  # nothing waits for it at the end
        timer.start()

    JobScheduler._schedule_reevalutation = once  # as Snakemake spells it


def note_signatures(rules: Iterable[Any]) -> None:
    """Has Snakemake know the parameters of the functions in rules, which it would find out again for each job.

    They are kept in the attribute by which Snakemake's own helpers replace the parameters of a function.
    """
    from snakemake.common import get_function_params, overwrite_function_params

    for rule in rules:
        for section in (*rule.input, *rule.output, *rule.params, *rule.log, *rule.resources.values(), rule.benchmark):
            for function in _functions(section):
                overwrite_function_params(function, get_function_params(function))


def _functions(section: Any) -> Iterable[Callable[..., Any]]:
    """Yields the function of an input, output, parameter or resource, wherever Snakemake keeps it."""
    file = getattr(section, "_file", section)
    for candidate in (file, getattr(file, "callable", None), getattr(section, "_evaluator", None)):
        if inspect.isfunction(candidate):
            yield candidate
