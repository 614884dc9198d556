"""SGD with momentum, and Adam, for parameters (P, ...) of a population: each member has its own learning rate."""

import torch
from torch import Tensor
from torch.optim.adam import adam

from creditflow.populations.network import Parameters
from creditflow.populations.optimizer_settings import OptimizerSettings


class Optimizer:
    """Takes steps in place. `state` and `n_steps` are part of a checkpoint.

    `state` holds averages (P, ...) by name, such as `velocity.weight1`.
    """

    def __init__(self, settings: OptimizerSettings) -> None:
        self.settings, self.n_steps = settings, 0
        self.state: dict[str, Tensor] = {}

    def step(self, parameters: Parameters, directions: Parameters, rates: Tensor) -> None:
        """Moves those parameters (P, ...) that have a direction (P, ...) against it, at the members' learning rates
        (P,)."""
        self.n_steps += 1
        if self.settings.kind == "adam":
            self._adam(parameters, directions, rates)
        else:
            self._sgd(parameters, directions, rates)

    def _sgd(self, parameters: Parameters, directions: Parameters, rates: Tensor) -> None:
        for name, proposed in directions.items():
            value = parameters[name]
            direction = proposed + self.settings.weight_decay * value if self.settings.weight_decay else proposed
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
        """Takes PyTorch's fused step for each member, which reads and writes every number once."""
        settings = self.settings
        state = {kind: [self._kept(kind, name, directions[name]) for name in names] for kind in ("mean", "square")}
        for index, rate in enumerate(rates):
            values = [parameters[name][index] for name in names]
            for value in values:
                self._shrink(value)
            steps = torch.full((len(names),), self.n_steps - 1.0, device=rates.device)  # `adam` adds 1 to each
            adam(
                values,
                [directions[name][index].contiguous() for name in names],
                [value[index] for value in state["mean"]],
                [value[index] for value in state["square"]],
                [],
                list(steps.unbind()),
                fused=True,
                amsgrad=False,
                maximize=False,
                beta1=settings.beta1,
                beta2=settings.beta2,
                lr=rate if rate.is_cuda and rate.dtype == torch.float32 else float(rate),
                weight_decay=settings.weight_decay,
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
