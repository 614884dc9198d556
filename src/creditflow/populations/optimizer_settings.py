"""Settings of the optimisers that train populations."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from creditflow.core.errors import UserError
from creditflow.core.settings import Many, SettingsModel


class OptimizerSettings(SettingsModel):
    """How the directions of an update rule become steps."""

    kind: Literal["sgd", "adam"] = "sgd"
    """Stochastic gradient descent or Adam, as in torch.optim."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of SGD."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Adam's averaging factor of directions."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's averaging factor of squared directions."""
    stability: float = Field(1e-8, gt=0, le=100)
    """Adam's epsilon, which is added to the root of the averaged square."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Factor of the L2 term that is added to the direction."""
    shrinkage: float = Field(0.0, ge=0, lt=1)
    """Share by which every weight that learns shrinks with each step, whatever the learning rate."""
    layer_rates: Many[Annotated[float, Field(gt=0, le=1_000_000)]] = ()
    """Factors of the learning rate, one for each layer's weight and bias; all are 1 if the list is empty."""
    layer_stabilities: Many[Annotated[float, Field(gt=0, le=100)]] = ()
    """Adam's epsilon of each layer, in place of `stability`."""
    drop_epochs: Many[Annotated[int, Field(ge=1, le=1_000_000)]] = ()
    """Epochs after which the learning rate is multiplied by `drop_factor`."""
    drop_factor: float = Field(0.1, gt=0, le=100)
    """What the learning rate is multiplied by after each of `drop_epochs`."""

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yields the keys of the other kind, and a factor that nothing is multiplied by."""
        of_kinds = {"sgd": ("momentum",), "adam": ("beta1", "beta2", "stability", "layer_stabilities")}
        for kind, names in of_kinds.items():
            if kind != self.kind:
                yield from ((name, f"with kind: {self.kind}") for name in names)
        if self.layer_stabilities:
            yield "stability", "beside layer_stabilities"
        if not self.drop_epochs:
            yield "drop_factor", "without drop_epochs"

    def of_layer(self, name: str) -> tuple[float, float]:
        """Returns the factor of the learning rate and Adam's epsilon for a parameter such as `weight2` or `bias2`.

        For a parameter of the feedback state these are 1 and `stability`.
        Raises UserError if there are factors, but none for that layer.
        """
        layer = name.removeprefix("weight").removeprefix("bias")
        if not layer.isdigit() or not (self.layer_rates or self.layer_stabilities):
            return 1.0, self.stability
        number = int(layer)
        factors = self.layer_rates or (1.0,) * number
        stabilities = self.layer_stabilities or (self.stability,) * number
        if number > min(len(factors), len(stabilities)):
            raise UserError(
                f"layer_rates and layer_stabilities must have an entry for each layer; there is none for layer {layer}"
            )
        return factors[number - 1], stabilities[number - 1]

    def rate_factor(self, epoch: int) -> float:
        """Returns what the learning rate is multiplied by in an epoch (1, 2, ...)."""
        return self.drop_factor ** sum(epoch > dropped for dropped in self.drop_epochs)
