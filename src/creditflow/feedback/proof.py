"""The proof that a rule is there: in its first passes a view watches where the weights of its feedback layers are used.

A layer has a rule only where the model calls the layer. A model may also take the weight out of the layer and use it
itself, as tied autoencoders and torchvision's swin_t do with `F.linear`. The error would then go down through W, and
nobody would notice. So the first pass in training mode and the first one in evaluation mode are watched. Later passes
cost one look at a set.

What `torch.compile` has compiled cannot be watched. Wherever the compiler is in use, a copy of the view makes the same
pass before without the compiler, and that pass is watched.
"""

import copy
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from creditflow.core.errors import UserError, one_line
from creditflow.feedback.backward import Conv2dFunction, LinearFunction
from creditflow.feedback.error import check_no_transform, check_not_captured, uncompiled
from creditflow.feedback.layers import FEEDBACK_TYPES, FeedbackLayer
from creditflow.feedback.replaceable import non_leaves

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

    Passes without gradients are not watched, as no error goes down in them.
    """

    def __init__(self) -> None:
        #: The modes (`training`) in which a pass was watched.
        self.proved: set[bool] = set()

    def put_on(self, view: nn.Module) -> None:
        """Makes the view watch its passes. In a model that `nn.DataParallel` wraps, each replica watches its own."""
        while isinstance(view, nn.DataParallel | nn.parallel.DistributedDataParallel):
            view = view.module
        view = uncompiled(view)
        view.register_forward_pre_hook(self._begin, with_kwargs=True)
        view.register_forward_hook(self._end, always_call=True)  # a watch must not outlive a pass that fails

    def _begin(self, view: nn.Module, arguments: Any, keywords: Any) -> None:
        if view.training in self.proved or not torch.is_grad_enabled():
            return
        check_no_transform()
        check_not_captured()
        if "torch._dynamo" in sys.modules:  # who compiles has imported it, which takes seconds
            torch.compiler.disable(prove)(view, *arguments, **keywords)
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
        watch.check(output)
        self.proved.add(view.training)


def prove(view: nn.Module, *arguments: Any, **keywords: Any) -> None:
    """Watches one pass of a copy of a view in the view's present mode. It changes neither the view nor random numbers.

    A view without a proof (BP) and one whose mode is proved already are left as they are.

    Raises UserError if a layer with a rule takes no part, or if the view cannot be copied.
    """
    proof = _proof_of(view)
    if proof is None or view.training in proof.proved:
        return
    copied, given = _copy(view), tree_map_only(Tensor, _alike, (arguments, keywords))
    devices = {tensor.device.index for tensor in copied.parameters() if tensor.is_cuda}
    if (of_copy := _proof_of(copied)) is not None:  # some modules, such as those of torch.fx, lose hooks in a copy
        of_copy.proved = {True, False}
    watch = _Watch(copied)
    with torch.random.fork_rng(sorted(devices)), torch.compiler.set_stance("force_eager"), torch.enable_grad(), watch:
        output = copied(*given[0], **given[1])
    watch.check(output)
    proof.proved.add(view.training)


def _proof_of(view: nn.Module) -> Proof | None:
    hooks = (getattr(hook, "__self__", None) for module in view.modules() for hook in module._forward_hooks.values())
    return next((owner for owner in hooks if isinstance(owner, Proof)), None)


def _copy(view: nn.Module) -> nn.Module:
    """Returns a copy with the same parameters and with buffers of its own, which a pass may write into."""
    shared: dict[int, object] = {id(tensor): tensor for tensor in [*view.parameters(), *non_leaves(view)]}
    try:
        return copy.deepcopy(view, shared)
    except Exception as error:  # hooks copy what they hold by code of its own, which raises errors of any type
        raise UserError(
            f"the rule cannot be proved in a compiled view that cannot be copied ({one_line(error)});"
            " call the view once with gradients before it is compiled"
        ) from error


def _alike(tensor: Tensor) -> Tensor:
    """Returns a copy of an argument, which the pass may write into."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


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
        memory: the weight's `id`, by the address of its numbers and of those of derived tensors, which are kept alive.
    """

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view
        layers = [(name, layer) for name, layer in view.named_modules() if isinstance(layer, FeedbackLayer)]
        self.names = {id(layer): name for name, layer in layers}
        self.owners: dict[int, list[int]] = {}
        self.memory: dict[int, int] = {}
        for _, layer in layers:
            layer.check_weight()
            self.owners.setdefault(id(layer.weight), []).append(id(layer))
            self.memory[_address(layer.weight)] = id(layer.weight)
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
        if base is not None and id(base) in self.owners:
            return id(base)
        address = _address(tensor)  # what NumPy or a new Parameter makes of a weight has the weight's memory
        return self.memory.get(address) if address else None

    def _note(self, name: str, used: set[int], given: list[Tensor], made: list[Tensor]) -> None:
        """Notes that a function made tensors from weights."""
        layer, hidden = _running_layer()
        if layer is not None and all(id(layer) in self.owners[weight] for weight in used):
            self.ran.add(id(layer))
        elif all(self._weight_of(tensor) is not None or id(tensor) in self.constants for tensor in given):
            # Nothing of the images is in it. A scalar, such as a penalty on the size of a weight, sends no error down.
            weight = next(iter(used))
            self.derived |= {id(tensor): (tensor, weight) for tensor in made if tensor.dim()}
            self.memory |= {_address(tensor): weight for tensor in made if tensor.dim()}
        elif hidden or (torch.is_grad_enabled() and any(tensor.is_floating_point() for tensor in made)):
            # Images of this pass may need no gradient. Those of an attack will.
            for weight in used:
                self.outside |= dict.fromkeys(self.owners[weight], name)

    def check(self, output: object) -> None:
        """Raises UserError if a weight was used outside of its layer, or if no layer ran."""
        for name, weight in _own_functions(output):
            self.outside |= dict.fromkeys(self.owners.get(id(weight), []), name)
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


def _own_functions(output: object) -> Iterator[tuple[str, Tensor]]:
    """Yields the name of each function of the user's own (`torch.autograd.Function`) in the graph of an output, with
    each parameter that it was given. Calls of such functions are not seen otherwise."""
    nodes = [tensor.grad_fn for tensor in _tensors(output) if tensor.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        made_by = getattr(type(node), "_forward_cls", None)
        users = issubclass(type(node), BackwardCFunction) and made_by not in (LinearFunction, Conv2dFunction)
        for following, _ in node.next_functions:
            if users and isinstance(variable := getattr(following, "variable", None), Tensor):
                yield node.name().removesuffix("Backward"), variable
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)


def _address(tensor: Tensor) -> int:
    """Returns where the numbers of a tensor lie; 0 for tensors without memory, such as those in a transform."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


#: Whoever runs code of these files computes without gradients what will have one, or has gradients of their own.
_HIDDEN = (torch.utils.checkpoint.__file__, torch.autograd.function.__file__, torch._functorch.vmap.__file__)


def _running_layer() -> tuple[FeedbackLayer | None, bool]:
    """Returns the feedback layer whose own pass is running in this thread, and whether gradients may be hidden.

    A reentrant checkpoint computes a pass without gradients first, and with them in the backward pass. Within a
    function of the user's own, and within `torch.vmap`, tensors do not say either that they will have a gradient.
    """
    frame: FrameType | None = sys._getframe(1)
    hidden = False
    while frame is not None:
        if frame.f_code in _OWN_PASSES:
            layer: FeedbackLayer = frame.f_locals["self"]
            return layer, hidden
        hidden |= frame.f_code.co_filename in _HIDDEN
        frame = frame.f_back
    return None, hidden
