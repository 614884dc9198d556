"""SGD with momentum and Adam for parameters (P, ...) of a population, a learning rate for each member."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

from creditflow.core.errors import UserError
from creditflow.populations.network import Parameters


@dataclass(frozen=True)
class OptimizerSettings:
    """How directions become steps.

    Attributes:
        kind: "sgd" or "adam", as in torch.optim.
        momentum: of SGD.
        beta1, beta2, stability: Adam's averaging factors, and its epsilon.
        weight_decay: L2 term added to the direction.
        shrinkage: share by which every weight that learns shrinks with each step, whatever the learning rate.
        layer_rates: factors of the rate of each layer's weight and bias, 1, 2, ...; all 1 if absent.
        layer_stabilities: Adam's epsilon of each layer, in place of `stability`.
        drop_epochs: after so many epochs the rate is multiplied by drop_factor.
    """

    kind: str = "sgd"
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    stability: float = 1e-8
    weight_decay: float = 0.0
    shrinkage: float = 0.0
    layer_rates: list[float] | tuple[float, ...] = ()
    layer_stabilities: list[float] | tuple[float, ...] = ()
    drop_epochs: list[int] | tuple[int, ...] = ()
    drop_factor: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in ("sgd", "adam"):
            raise ValueError(f"kind must be 'sgd' or 'adam', not {self.kind!r}")
        if not (0 <= self.momentum < 1 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError("momentum, beta1 and beta2 must be in [0, 1)")
        if not (
            0 <= self.weight_decay < math.inf and 0 < self.stability < math.inf and 0 < self.drop_factor < math.inf
        ):
            raise ValueError("weight_decay must be at least 0, stability and drop_factor positive")
        if any(not 0 < value < math.inf for value in (*self.layer_rates, *self.layer_stabilities)):
            raise ValueError("layer_rates and layer_stabilities must be positive and finite")
        if not 0 <= self.shrinkage < 1:
            raise ValueError("shrinkage must be in [0, 1)")

    def of_layer(self, name: str) -> tuple[float, float]:
        """Returns the factor of the rate and the stability of `weight2`, `bias2`; for anything else 1 and `stability`.

        Raises UserError if there are factors, but none for that layer.
        """
        layer = name.removeprefix("weight").removeprefix("bias")
        if not layer.isdigit() or not (self.layer_rates or self.layer_stabilities):
            return 1.0, self.stability
        factors, stabilities = (
            self.layer_rates or [1.0] * int(layer),
            self.layer_stabilities or [self.stability] * int(layer),
        )
        if int(layer) > min(len(factors), len(stabilities)):
            raise UserError(
                f"layer_rates and layer_stabilities must have an entry for each layer; there is none for layer {layer}"
            )
        return factors[int(layer) - 1], stabilities[int(layer) - 1]

    def rate_factor(self, epoch: int) -> float:
        """Returns what the learning rate is multiplied by in an epoch (1, 2, ...)."""
        return self.drop_factor ** sum(epoch > dropped for dropped in self.drop_epochs)


class Optimizer:
    """Steps in place. Its state, {name: tensor}, is part of a checkpoint."""

    def __init__(self, settings: OptimizerSettings) -> None:
        self.settings, self.n_steps = settings, 0
        self.state: dict[str, Tensor] = {}

    def step(self, parameters: Parameters, directions: Parameters, rates: Tensor) -> None:
        """Descends the directions of those parameters that have one; rates (P,)."""
        self.n_steps += 1
        if self.settings.kind == "adam":
            return self._adam(parameters, directions, rates)
        for name, taught in directions.items():
            value = parameters[name]
            direction = taught + self.settings.weight_decay * value if self.settings.weight_decay else taught
            self._shrink(value)
            rate = rates.view(-1, *[1] * (value.dim() - 1)) * self.settings.of_layer(name)[0]
            if self.settings.momentum:
                velocity = self._kept("velocity", name, value).mul_(self.settings.momentum).add_(direction)
                value.addcmul_(velocity, rate, value=-1)
            else:
                value.addcmul_(direction, rate, value=-1)

    def _adam(self, parameters: Parameters, directions: Parameters, rates: Tensor) -> None:
        alike: dict[tuple[float, float], list[str]] = {}
        for name in directions:
            alike.setdefault(self.settings.of_layer(name), []).append(name)
        for (factor, stability), names in alike.items():
            self._adam_of(names, parameters, directions, rates * factor, stability)

    def _adam_of(
        self, names: list[str], parameters: Parameters, directions: Parameters, rates: Tensor, stability: float
    ) -> None:
        """Takes PyTorch's fused step for each member: it reads and writes every number once."""
        one = self.settings
        state = {kind: [self._kept(kind, name, directions[name]) for name in names] for kind in ("mean", "square")}
        for index, rate in enumerate(rates):
            values = [parameters[name][index] for name in names]
            for value in values:
                self._shrink(value)
            steps = list(
                torch.full((len(names),), self.n_steps - 1.0, device=rates.device).unbind()
            )  # the step counts each up
            adam(
                values,
                [directions[name][index].contiguous() for name in names],
                [value[index] for value in state["mean"]],
                [value[index] for value in state["square"]],
                [],
                steps,
                fused=True,
                amsgrad=False,
                maximize=False,
                beta1=one.beta1,
                beta2=one.beta2,
                lr=rate if rate.is_cuda else float(rate),
                weight_decay=one.weight_decay,
                eps=stability,
            )

    def _shrink(self, value: Tensor) -> None:
        if self.settings.shrinkage:
            value.mul_(1 - self.settings.shrinkage)

    def _kept(self, kind: str, name: str, like: Tensor) -> Tensor:
        key = f"{kind}.{name}"
        if key not in self.state:
            self.state[key] = torch.zeros_like(like)
        return self.state[key]
