"""The gradient of each module alone against differences of its own forward pass, so that the culprits have names."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from creditflow.derivatives.layer import Layer
from creditflow.derivatives.report import LayerReport
from creditflow.derivatives.subject import State, Subject, generic_point

#: The name of the model as a whole among its modules.
ROOT = "(the model itself)"


def check_layers(subject: Subject, dishonest: bool, seed: int) -> tuple[LayerReport, ...]:
    """Checks the modules that a forward pass calls, each with the inputs of its first call.

    Args:
        subject: the model and its images.
        dishonest: whether the gradient of the whole model is wrong. Then containers are checked, too: a container is
            to blame if its gradient is wrong although no module inside it is to blame.
        seed: of the random cotangents and directions.

    Returns:
        reports in the order of `named_modules`: of all modules that call no other module, and of containers to blame.
        Modules whose inputs do not depend on the images are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    others = generic_point(subject.images, generator, moved=1.0)
    prints = _Fingerprints()
    _follow(subject, others, prints.enter, None)
    walk = _Walk(subject, dishonest, generator, prints)
    _follow(subject, subject.images, walk.enter, walk.leave)
    names = {module: name or ROOT for name, module in subject.model.named_modules()}
    return tuple(replace(walk.reports[module], name=name) for module, name in names.items() if module in walk.reports)


def _follow(subject: Subject, images: Tensor, enter: Callable[..., None], leave: Callable[..., None] | None) -> None:
    """Calls the model with hooks before and after the forward pass of each of its modules."""
    if subject.state is not None:  # it knows nothing of the hooks, and would take them away if it came later
        subject.state.restore()
    handles = []
    try:
        for module in subject.model.modules():
            if not isinstance(module, torch.jit.ScriptModule):  # it takes no hooks of Python
                handles.append(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
                if leave is not None:
                    handles.append(module.register_forward_hook(leave, with_kwargs=True))
        replace(subject, state=None).evaluate(images)
    finally:
        for handle in handles:
            handle.remove()


class _Fingerprints:
    """The sums of the inputs of each module's first call with other images.

    A module whose inputs stay the same does not depend on the images: it quantises weights, for example. Its gradient
    is no part of the gradient of the images.
    """

    def __init__(self) -> None:
        self._sums: dict[nn.Module, list[float]] = {}

    def enter(self, module: nn.Module, arguments: Any, named: Any) -> None:
        """The hook before a module's forward pass."""
        self._sums.setdefault(module, _sums((arguments, named)))

    def differ(self, module: nn.Module, inputs: Any) -> bool:
        """Returns whether a module's inputs depend on the images."""
        return self._sums.get(module) != _sums(inputs)


def _sums(inputs: Any) -> list[float]:
    tensors = [value for value in tree_flatten(inputs)[0] if isinstance(value, Tensor) and not value.is_complex()]
    return [float(tensor.double().sum()) for tensor in tensors]


@dataclass
class _Call:
    """A call of a module that is under way: whether it depends on the images, and the inputs of a first call."""

    module: nn.Module
    depends: bool
    inputs: Any = None
    state: State | None = None
    calls_others: bool = False
    blamed_below: bool = False


@dataclass
class _Walk:
    """Follows a forward pass by hooks, and checks each module when its first call returns."""

    subject: Subject
    dishonest: bool
    generator: torch.Generator
    prints: _Fingerprints
    reports: dict[nn.Module, LayerReport] = field(default_factory=dict)
    under_way: list[_Call] = field(default_factory=list)
    known: set[nn.Module] = field(default_factory=set)
    busy: bool = False

    def enter(self, module: nn.Module, arguments: Any, named: Any) -> None:
        """The hook before a module's forward pass."""
        if self.busy:
            return
        first = module not in self.known
        call = _Call(module, not first or self.prints.differ(module, (arguments, named)))
        if call.depends and self.under_way:
            self.under_way[-1].calls_others = True
        if call.depends and first:
            call.inputs = tree_map(_copied, (arguments, named))
            call.state = State(module) if self.subject.state is not None else None
        self.known.add(module)
        self.under_way.append(call)

    def leave(self, module: nn.Module, arguments: Any, named: Any, outputs: Any) -> None:
        """The hook after a module's forward pass."""
        if self.busy:
            return
        call = self.under_way.pop()
        if call.inputs is not None and (self.dishonest or not call.calls_others):
            self.busy = True
            try:
                self._check(call)
            finally:
                self.busy = False
        report = self.reports.get(module)
        if self.under_way and (call.blamed_below or (report is not None and report.honest is False)):
            self.under_way[-1].blamed_below = True

    def _check(self, call: _Call) -> None:
        if call.calls_others and call.blamed_below:
            return
        after = State(call.module) if call.state is not None else None
        layer = Layer(self.subject, call.module, call.inputs, call.state, self.generator)
        report = layer.report(self.dishonest, parameters=not call.calls_others)
        if after is not None:
            after.restore()
        if not call.calls_others or report.honest is False:
            self.reports[call.module] = report


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
