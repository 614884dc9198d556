"""Snakemake's command line, with a clock that says how much of the process's time is spent in our code.

    python benchmarks/_dry_run.py FILE ARGUMENT...

The arguments are Snakemake's. FILE gets one JSON object: the processor time of our parts, in seconds. The clock is read
only where control passes from Snakemake to us and back. So neither side becomes slower, as it does under a profiler; a
passage costs about a microsecond.

Our parts are:

- `reading`: what the Snakefile and the rules run while Snakemake reads them, with all that they import.
- `asking`: our functions that give a job its inputs, parameters and threads.
- `listening`: our handler of Snakemake's events.
"""

import atexit
import functools
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import snakemake
import snakemake.cli  # the first of Snakemake's modules, as each of them needs the others
from snakemake import resources, rules, workflow
from snakemake.io import AnnotatedString, _IOFile
from snakemake.logging import logger

Function = Callable[..., Any]

PARTS = ("reading", "asking", "listening")


class Clock:
    """Processor time of the process, by whose code runs: a part of ours, or Snakemake's (None)."""

    def __init__(self) -> None:
        self.seconds: dict[str | None, float] = defaultdict(float)
        self.part: str | None = None
        self._since = 0.0  # the start of the process

    def turn(self, part: str | None) -> str | None:
        """Says whose code runs from now on, and returns whose ran before."""
        now = time.process_time()
        self.seconds[self.part] += now - self._since
        before, self.part, self._since = self.part, part, now
        return before

    def timed(self, function: Function, part: str | None) -> Function:
        """Returns the function such that its time counts for a part."""

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            before = self.turn(part)
            try:
                return function(*arguments, **named)
            finally:
                self.turn(before)

        return call

    def write(self, path: Path) -> None:
        """Writes what the clock has counted."""
        self.turn(None)
        path.write_text(json.dumps({part: self.seconds[part] for part in PARTS}), encoding="utf-8")


def time_reading(clock: Clock) -> None:
    """Counts what Snakefiles run for us, and what they call of Snakemake, such as the decorators of rules, for it."""

    def run(*arguments: Any) -> None:
        before = clock.turn("reading")
        try:
            exec(*arguments)
        finally:
            clock.turn(before)
        for handler in logger.handlers:
            time_listening(clock, handler)

    workflow.exec = run
    for name, method in list(vars(workflow.Workflow).items()):
        if callable(method) and not name.startswith("_"):
            setattr(workflow.Workflow, name, of_snakemake(clock, method))


def of_snakemake(clock: Clock, method: Function) -> Function:
    """Returns a method whose time counts for Snakemake, and so does the decorator that it may return to us."""
    timed = clock.timed(method, None)

    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        if clock.part is None:
            return method(*arguments, **named)
        result = timed(*arguments, **named)
        return clock.timed(result, None) if getattr(result, "__name__", "") == "decorate" else result

    return call


def time_listening(clock: Clock, handler: logging.Handler) -> None:
    """Counts what one of our handlers of events does."""
    if type(handler).__module__.startswith("creditflow.") and "handle" not in vars(handler):
        handler.handle = clock.timed(handler.handle, "listening")  # type: ignore[method-assign]


def time_asking(clock: Clock) -> None:
    """Counts the functions that Snakemake calls for a job. It inspects their signatures as it does without a clock."""
    timed = functools.cache(functools.partial(time_ours, clock))
    apply = rules.Rule.apply_input_function

    def apply_timed(rule: rules.Rule, function: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(function, _IOFile):
            function = function._file
        function = function.callable if isinstance(function, AnnotatedString) else function
        return apply(rule, timed(function), *arguments, **named)

    make = resources.Resource.__init__

    def make_timed(resource: resources.Resource, *arguments: Any, **named: Any) -> None:
        make(resource, *arguments, **named)
        if resource._evaluator is not None:
            resource._evaluator = timed(resource._evaluator)  # type: ignore[misc]

    rules.Rule.apply_input_function = apply_timed
    resources.Resource.__init__ = make_timed
    for module in (rules, resources):
        module.get_input_function_aux_params = of_unwrapped(module.get_input_function_aux_params)
    rules.get_function_params = of_unwrapped(rules.get_function_params)


def time_ours(clock: Clock, function: Function) -> Function:
    """Returns a function that counts, and one of Snakemake's, such as that of a default resource, as it is."""
    code = getattr(function, "__code__", None)
    of_ours = code is None or not Path(code.co_filename).is_relative_to(Path(snakemake.__file__).parent)
    return clock.timed(function, "asking") if of_ours else function


def of_unwrapped(inspect: Function) -> Function:
    """Returns a function that inspects the function behind a timed one."""
    return lambda function, *arguments: inspect(getattr(function, "__wrapped__", function), *arguments)


if __name__ == "__main__":
    CLOCK = Clock()
    atexit.register(CLOCK.write, Path(sys.argv[1]).resolve())
    time_reading(CLOCK)
    time_asking(CLOCK)
    sys.argv = ["snakemake", *sys.argv[2:]]  # the workflow looks there for what it is asked for
    snakemake.cli.main()
