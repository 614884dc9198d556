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
    try:
        with weights_in_float64(model, dtype_before):
            yield replace(problem, images=problem.images.double())
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not _OTHER_TYPE.search(str(error)):
            raise
        raise UserError(f"the model does not compute in float64 ({one_line(error)}); {_ADVICE}") from error
    finally:
        handle.remove()


@contextmanager
def weights_in_float64(model: nn.Module, dtype_before: torch.dtype) -> Iterator[None]:
    """Puts the weights of a model, which have one type, into float64 in a block."""
    try:
        model.to(torch.float64)
        yield
    finally:
        model.to(dtype_before)


def types_of(model: nn.Module) -> set[torch.dtype]:
    """Returns the types of a model's floating-point weights and buffers."""
    tensors = (*model.parameters(), *model.buffers())
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


def _type_of(model: nn.Module) -> torch.dtype:
    types = types_of(model)
    if len(types) > 1:
        names = sorted(str(dtype).removeprefix("torch.") for dtype in types)
        raise UserError(f"precision: float64 needs weights of one type, not of {' and '.join(names)}; {_ADVICE}")
    return next(iter(types), torch.float32)


def _check_type(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if output.dtype != torch.float64:
        computed = str(output.dtype).removeprefix("torch.")
        raise UserError(
            f"the model computes in {computed}, though its weights and images are float64: a part of it converts"
            f" numbers; {_ADVICE}"
        )
