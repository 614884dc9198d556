"""The proof that a rule is there: in its first passes a view watches where the weights of its feedback layers are used.

A layer has a rule only where the model calls the layer. A model may also take the weight out of the layer and use it
itself, as tied autoencoders and torchvision's swin_t do with `F.linear`. The error would then go down through W, and
nobody would notice. So the first pass in training mode and the first one in evaluation mode are watched. Later passes
cost one look at a set.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from creditflow.core.errors import UserError
from creditflow.feedback.layers import FEEDBACK_TYPES, FeedbackLayer

#: The code of the layers' own passes. What uses a weight below one of these frames uses it as the rule wants it.
_OWN_PASSES = {feedback_type.forward.__code__ for feedback_type in FEEDBACK_TYPES.values()}

#: Functions that take only a type, a shape or a device from a weight.
_HARMLESS = ("type_as", "view_as", "reshape_as", "expand_as")


class _Watches(threading.local):
    """The watches of the passes that are under way in this thread; `nn.DataParallel` runs passes in several threads."""

    def __init__(self) -> None:
        self.running: list[_Watch] = []


_watches = _Watches()


class Proof:
    """Watches the first pass of a view in each of the two modes, and raises UserError if a layer took no part in it.

    Passes without gradients are not watched, as no error goes down in them. Passes that `torch.compile` traces are not
    watched either.
    """

    def __init__(self) -> None:
        #: The modes (`training`) in which a pass was watched.
        self.proved: set[bool] = set()

    def put_on(self, view: nn.Module) -> None:
        """Makes the view watch its passes. In a model that `nn.DataParallel` wraps, each replica watches its own."""
        while isinstance(view, nn.DataParallel | nn.parallel.DistributedDataParallel):
            view = view.module
        view.register_forward_pre_hook(self._begin)
        view.register_forward_hook(self._end, always_call=True)  # a watch must not outlive a pass that fails

    def _begin(self, view: nn.Module, arguments: Any) -> None:
        if view.training in self.proved or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        if any(_is_compiled(module) for module in view.modules()):
            return
        watch = _Watch(view)
        _watches.running.append(watch)
        watch.__enter__()  # type: ignore[no-untyped-call]

    def _end(self, view: nn.Module, arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not _watches.running or _watches.running[-1].view is not view:
            return
        watch = _watches.running.pop()
        watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if output is None:  # the pass has failed, and says so itself
            return
        watch.check()
        self.proved.add(view.training)


def _is_compiled(module: nn.Module) -> bool:
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # it takes seconds to import, and is there if it compiled
    return module._compiled_call_impl is not None or (dynamo is not None and isinstance(module, dynamo.OptimizedModule))


class _Watch(TorchFunctionMode):
    """Looks at every call of torch during one pass, and notes where the weights of feedback layers go.

    Attributes:
        view: the view whose pass is watched.
        names: name of each feedback layer, by the layer's `id`.
        owners: the `id`s of the feedback layers that have a weight, by the weight's `id`.
        ran: the `id`s of the layers that used their weight in their own pass.
        outside: name of the function that used a weight outside of its layer, by the layer's `id`.
        derived: tensors that were made from a weight and from constants alone, and the weight's `id`, by their `id`.
        constants: the `id`s of all parameters and buffers.
    """

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view
        layers = [(name, layer) for name, layer in view.named_modules() if isinstance(layer, FeedbackLayer)]
        self.names = {id(layer): name for name, layer in layers}
        self.owners: dict[int, list[int]] = {}
        for _, layer in layers:
            self.owners.setdefault(id(layer.weight), []).append(id(layer))
        self.ran: set[int] = set()
        self.outside: dict[int, str] = {}
        self.derived: dict[int, tuple[Tensor, int]] = {}
        self.constants = {id(tensor) for tensor in [*view.parameters(), *view.buffers()]}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = list(_tensors([args, kwargs]))
        used = {weight for tensor in given if (weight := self._weight_of(tensor)) is not None}
        name = getattr(func, "__name__", str(func))
        if used and name not in _HARMLESS:
            self._note(name, used, given, list(_tensors(result)))
        return result

    def _weight_of(self, tensor: Tensor) -> int | None:
        """Returns the `id` of the weight that a tensor is, views or was made from; None for other tensors."""
        if id(tensor) in self.owners:
            return id(tensor)
        if id(tensor) in self.derived:
            return self.derived[id(tensor)][1]
        base = tensor._base
        return id(base) if base is not None and id(base) in self.owners else None

    def _note(self, name: str, used: set[int], given: list[Tensor], made: list[Tensor]) -> None:
        """Notes that a function made tensors from weights."""
        layer, checkpointed = _running_layer()
        if layer is not None and all(id(layer) in self.owners[weight] for weight in used):
            self.ran.add(id(layer))
        elif all(self._weight_of(tensor) is not None or id(tensor) in self.constants for tensor in given):
            # Nothing of the images is in it. A scalar, such as a penalty on the size of a weight, sends no error down.
            self.derived |= {id(tensor): (tensor, next(iter(used))) for tensor in made if tensor.dim()}
        elif checkpointed or any(tensor.requires_grad for tensor in made):
            for weight in used:
                self.outside |= dict.fromkeys(self.owners[weight], name)

    def check(self) -> None:
        """Raises UserError if a weight was used outside of its layer, or if no layer ran."""
        if self.outside:
            first, function = next(iter(self.outside.items()))
            others = f" and {len(self.outside) - 1} more" if len(self.outside) > 1 else ""
            raise UserError(
                f"the rule has no effect on layer {self.names[first]!r}{others}: the model uses the layer's weight"
                f" itself (in {function}) instead of calling the layer; no rule can be put on this model"
            )
        if not self.ran:
            raise UserError(
                f"the rule has no effect: the model did not call any of the {len(self.names)} layers that the rule is"
                f" on, such as {next(iter(self.names.values()))!r}"
            )


def _tensors(values: Any) -> Iterator[Tensor]:
    leaves: Iterable[Any] = tree_leaves(values)
    return (leaf for leaf in leaves if isinstance(leaf, Tensor))


def _running_layer() -> tuple[FeedbackLayer | None, bool]:
    """Returns the feedback layer whose own pass is running in this thread, and whether a checkpoint is running.

    A reentrant checkpoint computes a pass without gradients first, and with them in the backward pass.
    """
    frame: FrameType | None = sys._getframe(1)
    checkpointed = False
    while frame is not None:
        if frame.f_code in _OWN_PASSES:
            layer: FeedbackLayer = frame.f_locals["self"]
            return layer, checkpointed
        checkpointed |= frame.f_code.co_filename == torch.utils.checkpoint.__file__
        frame = frame.f_back
    return None, checkpointed
