"""Linear and Conv2d layers whose error goes down through a feedback weight."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from creditflow.core.errors import UserError
from creditflow.feedback.backward import Conv2dFunction, Feedback, LinearFunction
from creditflow.feedback.draws import fingerprint, is_same, remembered
from creditflow.feedback.error import OutputTap, check_no_transform, check_not_captured, refuse_script
from creditflow.feedback.exchange import Exchange, is_usual
from creditflow.feedback.rule import Rule, State


class FeedbackLayer(nn.Module):
    """What Linear and Conv2d have in common when a rule is on them: the state of the rule, which follows W.

    For rules that react to an update of W, the layer notices the update by a fingerprint of W. The version counters of
    tensors would not do, as fused optimisers do not advance them, and a copy of W would cost memory.
    """

    weight: Tensor
    rule: Rule
    state: State
    _tap: OutputTap | None
    _seen: Tensor

    def put_rule(self, rule: Rule, state: State, tap: OutputTap | None = None) -> None:
        """Puts a rule on the layer, with its state for this layer and, for a direct rule, the tap on the output."""
        self.rule, self.state, self._tap = rule, state, tap
        if rule.after_update is not None:
            self._seen = remembered(fingerprint(self.weight))

    def __prepare_scriptable__(self) -> Self:
        """Raises UserError: `torch.jit.script` calls it."""
        refuse_script()
        return self

    def feedback_weight(self) -> Tensor:
        """Returns V for the present W, of the shape of W; for a direct rule of the shape (K, inputs, ...)."""
        with torch.no_grad():
            return self.rule.feedback_weight(self.weight.detach(), self.present_state())

    def present_state(self) -> State:
        """Returns the state of the rule for the present W. If W has changed, the rule updates its state first."""
        if self.rule.after_update is not None:
            weight = self.weight.detach()
            present = fingerprint(weight)
            if not is_same(present, self._seen):
                with _usual_mode(weight.device.type):
                    state = self.rule.after_update(weight, self.state)
                    present = remembered(present, self._seen)
                # `Module.__setattr__` would look for parameters in them, which takes longer than all the rest.
                object.__setattr__(self, "state", state)
                object.__setattr__(self, "_seen", present)
        return self.state

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves or converts the layer (`to`, `half`, `cuda` and the like) together with the state of its rule.

        A weight that was moved counts as the same weight: the rule does not take this for an update.
        """
        state = self.present_state()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.state = {name: fn(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        if self.rule.after_update is not None:
            self._seen = remembered(fingerprint(self.weight))
        return self

    def _feedback(self) -> Feedback:
        """Returns what the backward of a pass that begins now will need.

        Raises UserError in a transform of `torch.func`, and if W is no parameter any more.
        """
        check_no_transform()
        self.check_weight()
        return Feedback(self.rule, self.present_state(), self._tap.current if self._tap is not None else None)

    def check_weight(self) -> None:
        """Raises UserError if W was given a form, after the rule was put on, on which no rule is put."""
        # nn.DataParallel keeps the weights of replicas in `_former_parameters`.
        if "weight" not in self._parameters and not hasattr(self, "_former_parameters"):
            raise UserError(
                "the weight of a layer with a rule now follows from other tensors (a parametrisation, weight or"
                " spectral normalisation, pruning); no rule can be put on such a layer"
            )
        if self.weight.is_complex():
            raise UserError("the weight of a layer with a rule is now complex; rules are for real numbers")

    def _operands(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Returns x, W, b, and what V follows from if that is not this W.

        Under autocast x, W and b are in its type, as in the layers of PyTorch, and V follows from the W before that.
        """
        if not torch.is_autocast_enabled(x.device.type):
            return x, self.weight, bias, None
        dtype = torch.get_autocast_dtype(x.device.type)
        return _cast(x, dtype), _cast(self.weight, dtype), None if bias is None else _cast(bias, dtype), self.weight


def _usual_mode(device_type: str) -> AbstractContextManager[object]:
    """Returns a context in which a rule updates its state: without gradients, autocast and inference mode.

    Half precision is for the pass only. A state that was made in inference mode could not be used later. The contexts
    take time, so that those that would change nothing are left out.
    """
    autocast, inference = torch.is_autocast_enabled(device_type), torch.is_inference_mode_enabled()
    if not autocast and not inference:
        return torch.no_grad()
    contexts = ExitStack()
    if autocast:
        contexts.enter_context(torch.autocast(device_type, enabled=False))
    if inference:
        contexts.enter_context(torch.inference_mode(False))
    contexts.enter_context(torch.no_grad())
    return contexts


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)  # autocast does not change float64


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """nn.Linear with a feedback rule, for inputs of any number of dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self._parameters.get("weight")
        if not self.rule.direct and is_usual(weight, x) and _has_plain_rows(x, weight):
            output: Tensor = F.linear(x, weight, self._parameters["bias"])
            if Exchange(self.rule, weight, self.present_state(), True, True).put_into(output, "_raw_saved_mat2"):
                return output
        check_not_captured(x)
        if not torch.is_grad_enabled():
            return super().forward(x)
        operands = *self._operands(x, self.bias), self._feedback()
        output = LinearFunction.apply(*operands)  # type: ignore[no-untyped-call]
        return output


def _has_plain_rows(x: Tensor, weight: Tensor) -> bool:
    """Says whether the node of nn.Linear saves W and makes gradients in the way of `LinearFunction`."""
    return x.dim() == 2 and x.requires_grad and x.stride() == (x.shape[1], 1) != (1, 1) and weight.is_contiguous()


class FeedbackConv2d(FeedbackLayer, nn.Conv2d):
    """nn.Conv2d with a feedback rule, for every stride, padding, padding mode, dilation and number of groups."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self._parameters.get("weight")
        if not self.rule.direct and is_usual(weight, x) and x.dim() == 4 and self._pads_plainly():
            geometry: tuple[Any, ...] = (self.stride, self.padding, self.dilation, self.groups)
            output: Tensor = F.conv2d(x, weight, self._parameters["bias"], *geometry)
            exchange = Exchange(self.rule, weight, self.present_state(), x.requires_grad, False)
            if exchange.put_into(output, "_raw_saved_weight"):
                return output
        check_not_captured(x)
        if not torch.is_grad_enabled():
            return super().forward(x)
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        left, right, top, bottom = self._reversed_padding_repeated_twice
        padding = (top, left)
        if self.padding_mode != "zeros" or (left, top) != (right, bottom):
            # Padding has no weights. It is done outside the function, where its gradient is exact.
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, [left, right, top, bottom], mode=mode), (0, 0)
        operands = *self._operands(x, self.bias), self._feedback(), (self.stride, padding, self.dilation, self.groups)
        output = Conv2dFunction.apply(*operands)  # type: ignore[no-untyped-call]
        return output

    def _pads_plainly(self) -> bool:
        return self.padding_mode == "zeros" and not isinstance(self.padding, str)


#: The types of plain layers that a rule can be put on, and the types that replace them.
FEEDBACK_TYPES: dict[type[nn.Module], type[FeedbackLayer]] = {nn.Linear: FeedbackLinear, nn.Conv2d: FeedbackConv2d}
