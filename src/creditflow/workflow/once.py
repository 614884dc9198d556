"""Functions of a job's wildcards that are called once for all jobs that agree in some of them.

Snakemake asks for the inputs and parameters of each job, of ten thousand in a large experiment. Most answers depend on
a few wildcards, such as the experiment and the attack. Experiments are read once, when Snakemake starts. So within a
run an answer stays as it is.
"""

from collections.abc import Callable
from functools import wraps
from operator import attrgetter
from typing import Any, TypeVar

Answer = TypeVar("Answer")
#: A function of a job's wildcards.
Function = Callable[[Any], Answer]


def once_per(*names: str) -> Callable[[Function[Answer]], Function[Answer]]:
    """Returns a decorator by which a function of wildcards is called once for each combination of their values.

    Jobs share the answer, so nobody may change it. What the function raises is not kept.

    Args:
        names: all wildcards that the answer depends on. Every job that asks must have them.
    """
    return _once(attrgetter(*names))


def once_for_all(name: str) -> Callable[[Function[Answer]], Function[Answer]]:
    """Returns a decorator as `once_per` does, for a function that uses each wildcard of a rule except one.

    Jobs of several rules may not share the function, as values are told apart by their places.

    Args:
        name: the wildcard that the answer does not depend on, such as `seed`.
    """
    return _once(lambda wildcards: tuple(value for each, value in wildcards.items() if each != name))


def _once(key_of: Callable[[Any], Any]) -> Callable[[Function[Answer]], Function[Answer]]:
    def decorate(function: Function[Answer]) -> Function[Answer]:
        answers: dict[Any, Answer] = {}

        @wraps(function)
        def answer(wildcards: Any) -> Answer:
            key = key_of(wildcards)
            if key not in answers:
                answers[key] = function(wildcards)
            return answers[key]

        return answer

    return decorate
