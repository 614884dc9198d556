"""The model that `check_gradient` evaluates: a copy in float64 where that is possible, with the same random numbers."""

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from creditflow.compute.randomness import derive_seed

#: Maps outputs to a number that is differentiated.
Functional = Callable[[Tensor], Tensor]


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Restores the global random generators of torch, numpy and Python."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def seed_everything(*names: str | int) -> None:
    """Seeds the global random generators of torch, numpy and Python."""
    seed = derive_seed("check_gradient", *names)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond where there is no GPU
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


class State:
    """What calls may change in a module: attributes, the contents of containers, buffers and other plain tensors."""

    def __init__(self, model: nn.Module) -> None:
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, Tensor]] = []
        for module in model.modules():
            if isinstance(module, torch.jit.ScriptModule):  # its attributes are not Python's
                self._keep_tensors(module.buffers())
                continue
            self._attributes.append((module.__dict__, dict(module.__dict__)))
            self._keep_tensors(module.__dict__.values())
            for value in module.__dict__.values():
                if isinstance(value, dict | list | set | deque):
                    self._containers.append((value, copy.copy(value)))
                    self._keep_tensors(value.values() if isinstance(value, dict) else value)

    def _keep_tensors(self, values: Iterable[Any]) -> None:
        plain = [value for value in values if isinstance(value, Tensor) and not isinstance(value, nn.Parameter)]
        self._tensors += [(tensor, tensor.detach().clone()) for tensor in plain]

    def restore(self) -> None:
        """Puts everything back. Objects keep their identity."""
        for attributes, kept in self._attributes:
            attributes.clear()
            attributes.update(kept)
        for container, content in self._containers:
            container.clear()
            (container.extend if isinstance(container, list | deque) else container.update)(content)
        with torch.no_grad():
            for tensor, kept_tensor in self._tensors:
                if not torch.equal(tensor, kept_tensor):
                    tensor.copy_(kept_tensor)


@dataclass(frozen=True)
class Subject:
    """A model, the images that it is evaluated at, and how it is called so that two calls give the same.

    Attributes:
        model: the model.
        images: (N, ...), in the type that the model takes.
        seed: seeds the global random generators before each call.
        state: what the model was like before the first call, if a call leaves something behind for the next; or None.
        graph: whether the forward pass has to record a graph of autograd, because it gives something else without one.
    """

    model: nn.Module
    images: Tensor
    seed: int
    state: State | None = None
    graph: bool = False

    def __call__(self, images: Tensor) -> Any:
        """Returns the model's outputs. The images are cloned, since the model may write into them."""
        if self.state is not None:
            self.state.restore()
        seed_everything(self.seed)
        return self.model(images.clone())

    def evaluate(self, images: Tensor) -> Any:
        """Returns the outputs without their graph."""
        with torch.set_grad_enabled(self.graph):
            outputs = self(images)
        return outputs.detach() if isinstance(outputs, Tensor) else outputs

    def gradient(self, functional: Functional) -> Tensor | None:
        """Returns the model's own gradient of a functional of the outputs; None if there is none."""
        images = self.images.detach().clone().requires_grad_()
        with torch.enable_grad():
            value = functional(self(images))
        if not value.requires_grad:
            return None
        gradient: Tensor | None = torch.autograd.grad(value, images, allow_unused=True)[0]
        return None if gradient is None else gradient.detach()

    def in_float64(self) -> "Subject | None":
        """Returns a copy whose parameters, buffers and images have float64; None if the model cannot work so."""
        if self.state is not None:
            self.state.restore()
        try:
            model = copy.deepcopy(uncompiled(self.model)).double()
            if any(tensor.is_floating_point() and tensor.dtype != torch.float64 for tensor in _tensors(model)):
                return None
            subject = replace(self, model=model, images=self.images.double())
            if self.state is not None:
                subject = replace(subject, state=State(model))
            outputs = subject.evaluate(subject.images)
        except Exception:  # whatever a foreign model raises: without a copy, the model itself is evaluated
            return None
        return subject if torch.isfinite(outputs).all() else None


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def uncompiled(model: nn.Module) -> nn.Module:
    """Returns what `torch.compile` has wrapped."""
    while isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    return model


def forward_slope(subject: Subject, functional: Functional, direction: Tensor) -> float | None:
    """Returns the slope of a functional along a direction by forward-mode differentiation; None where that fails."""
    forward_mode = torch.autograd.forward_ad
    try:
        with forward_mode.dual_level(), torch.no_grad():
            images = forward_mode.make_dual(subject.images.detach().clone(), direction)
            slope = forward_mode.unpack_dual(functional(subject(images))).tangent
    except Exception:  # a function without a rule for it, whatever it raises
        return None
    return None if slope is None else float(slope)


def generic_point(tensor: Tensor, generator: torch.Generator, moved: float = 0.01) -> Tensor:
    """Returns a tensor moved a part of the way to random numbers within its own range.

    Images have pixels at the ends of the range and areas of one value, and units have outputs of exactly zero: there
    a maximum or a ReLU has a kink, and no derivative.
    """
    low, high = float(tensor.min()), float(tensor.max())
    span = high - low if high > low else (abs(low) or 1.0)
    anywhere = low + span * torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
    return tensor.detach() + moved * (anywhere - tensor.detach())


def custom_functions(outputs: Iterable[Tensor]) -> tuple[str, ...]:
    """Returns the names of the classes of custom autograd functions, outside torch, in the graph of some outputs."""
    waiting: list[Any] = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen: set[Any] = set()
    names: dict[str, None] = {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(node, "_forward_cls", None)
        if function is not None and function.__module__.partition(".")[0] != "torch":
            names[function.__name__] = None
        waiting += [parent for parent, _ in node.next_functions]
    return tuple(names)
