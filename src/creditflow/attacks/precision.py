"""Attacks that compute in float64, on models whose weights are float32."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Problem
from creditflow.core.errors import UserError, one_line

_ADVICE = "leave precision: float64 out"

#: How torch says that numbers of two types meet.
_OTHER_TYPE = re.compile(r"dtype|scalar type|double|float64|same type", re.IGNORECASE)


def in_precision(problem: Problem, settings: Any) -> AbstractContextManager[Problem]:
    """Returns a context with the problem in the precision that the settings of the attack name."""
    return in_float64(problem) if settings.precision == "float64" else nullcontext(problem)


@contextmanager
def in_float64(problem: Problem) -> Iterator[Problem]:
    """Yields the problem with its model and images in float64. At the end the model is what it was.

    A gradient that is too small for float32, and so exactly zero there, may still be a number in float64.

    Raises UserError for a model whose weights have several types, or that does not compute in float64.
    """
    model = problem.model
    dtype_before = _type_of(model)
    handle = model.register_forward_hook(_check_type)
    model.to(torch.float64)
    try:
        yield replace(problem, images=problem.images.double())
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not _OTHER_TYPE.search(str(error)):
            raise
        raise UserError(f"the model does not compute in float64 ({one_line(error)}); {_ADVICE}") from error
    finally:
        handle.remove()
        model.to(dtype_before)


def _type_of(model: nn.Module) -> torch.dtype:
    tensors = [*model.parameters(), *model.buffers()]
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.is_floating_point()})
    if len(types) > 1:
        raise UserError(f"precision: float64 needs weights of one type, not of {' and '.join(types)}; {_ADVICE}")
    dtype: torch.dtype = getattr(torch, types[0] if types else "float32")
    return dtype


def _check_type(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if output.dtype != torch.float64:
        computed = str(output.dtype).removeprefix("torch.")
        raise UserError(
            f"the model computes in {computed}, though its weights and images are float64: a part of it converts"
            f" numbers; {_ADVICE}"
        )
