"""The short way through a layer: the pass of the plain layer, whose node of autograd gets V in the place of W.

The node of a Linear or Conv2d uses the W that it has saved for one thing only: to send the error down. So the pass is
that of PyTorch itself, and when the backward asks for the saved W, it gets V. The kernels are those that the functions
of `backward.py` call, and so are the numbers, bit by bit. But PyTorch calls Python once in each backward, and in the
forward no function of autograd is made, which is what costs small networks most. Whatever is unusual goes through the
functions.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from creditflow.derivatives.scope import open_scopes
from creditflow.feedback.error import check_first_order
from creditflow.feedback.rule import Rule, State, laid_out_as

#: At most this number of bytes of W: the functions make V of a larger layer in parts, and its gradients one by one.
SMALL = 2**20

# The names below are looked up in each pass of each layer.
_tracing_state = torch._C._get_tracing_state
_transforms = torch._C._functorch.peek_interpreter_stack
_n_modes = torch._C._len_torch_dispatch_stack
_hooks = torch._C._autograd._top_saved_tensors_default_hooks


def is_usual(weight: object, x: Tensor) -> TypeGuard[nn.Parameter]:
    """Says whether a pass of a layer may take the short way.

    It may not inside `exact_gradients`, which undoes functions of autograd and cannot see this exchange; in compiled,
    traced or transformed code; with forward-mode gradients; under autocast; where hooks decide what autograd saves
    (`torch.utils.checkpoint`); for large weights; and for tensors of an unusual kind. A pass without gradients needs no
    way at all.
    """
    return (
        not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and type(x) is Tensor
        and type(weight) is nn.Parameter
        and x.dtype is weight.dtype
        and weight.is_floating_point()
        and weight.nbytes <= SMALL
        and (x.is_cpu or x.is_cuda)
        and not torch.is_autocast_enabled("cpu" if x.is_cpu else "cuda")
        and x.layout is torch.strided
        and _tracing_state() is None
        and _transforms() is None
        and not _n_modes()
        and _hooks(True) is None
        and forward_ad._current_level < 0
        and not torch.compiler.is_exporting()
        and not open_scopes()
    )


class Exchange:
    """What the node of one pass keeps instead of W.

    Attributes:
        rule: the rule of the layer.
        weight: W.
        state: the state of the rule at the time of the pass.
        wanted: False if no error goes down, so that nobody needs V.
        turned: True if the node has saved the transpose of W.
        versions: the version counters of W and of the state. Autograd does not look at what it has not saved itself.
    """

    __slots__ = ("rule", "state", "turned", "versions", "wanted", "weight")

    def __init__(self, rule: Rule, weight: Tensor, state: State, wanted: bool, turned: bool) -> None:
        self.rule, self.weight, self.state, self.wanted, self.turned = rule, weight, state, wanted, turned
        self.versions = [weight._version, *[tensor._version for tensor in state.values()]]

    def put_into(self, output: Tensor, saved: str) -> bool:
        """Puts V in the place of W; returns False if that place does not exist.

        Args:
            output: what the plain layer has returned.
            saved: the attribute of its node where W, or its transpose, is saved.
        """
        node = output.grad_fn
        if node is None:  # nothing here needs a gradient
            return True
        place = getattr(node, saved, None)
        if place is not None:
            place.register_hooks(self._keep, Exchange._through)
        return place is not None

    def _keep(self, saved: Tensor) -> "Exchange":
        return self

    def _through(self) -> Tensor:
        """Returns what the error goes down through. The backward pass calls it.

        Raises:
            UserError: the gradient is to be differentiated.
            RuntimeError: W or the state was changed after the forward pass.
        """
        check_first_order()
        weight, state = self.weight, self.state
        if self.versions != [weight._version, *[tensor._version for tensor in state.values()]]:
            raise RuntimeError(
                "the weight of a layer with a rule, or what the rule remembers of it, was modified by an inplace"
                " operation between the forward and the backward pass"
            )
        feedback = self.rule.feedback_weight(weight, state) if self.wanted else weight
        if feedback.dtype is not weight.dtype:
            feedback = feedback.to(weight.dtype)
        feedback = laid_out_as(weight, feedback)
        return feedback.t() if self.turned else feedback
