"""GNT: Gauss-Newton targets, what target propagation approximates (Meulemans et al., 2020).

With J_i = dh_L / dh_i, the target of each image is h_i - J_i^T (J_i J_i^T + damping I)^-1 e, e the loss gradient at the output; without
damping the pseudo-inverse of J_i takes the place of the product.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from creditflow.core.errors import UserError, one_line
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, forward
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._targets import Clean, update


@dataclass(frozen=True)
class Settings:
    """damping: of the Gauss-Newton inverse."""

    damping: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.damping < math.inf:
            raise ValueError(f"damping must be at least 0 and finite, not {self.damping}")


def jacobians(network: Network, parameters: Parameters, found: Pass) -> dict[int, Tensor]:
    """Returns J_i (B, C, n_i) of each hidden layer."""
    n = len(found.inputs[0])
    jacobian = parameters[f"weight{network.n_layers}"].expand(n, -1, -1)
    result = {network.n_layers - 1: jacobian}
    for layer in range(network.n_layers - 1, 1, -1):
        hidden = found.hidden[layer - 1][:, None].expand(jacobian.shape)
        jacobian = network.activate.back(jacobian, hidden) @ parameters[f"weight{layer}"]
        result[layer - 1] = jacobian
    return result


def targets(clean: Clean, output: Tensor, damping: float) -> dict[int, Tensor]:
    """Returns the differences of the targets; NaN for a network that has diverged. Raises UserError if a pseudo-inverse is not found."""
    result, error = {}, output.double()[..., None]
    for layer, jacobian in jacobians(clean.network, clean.parameters, clean.found).items():
        j = jacobian.double()  # J J^T of ten classes can be ill-conditioned
        result[layer] = (j.transpose(1, 2) @ _solved(j @ j.transpose(1, 2), error, damping, layer))[..., 0].to(
            output.dtype
        )
    return result


def _solved(gram: Tensor, error: Tensor, damping: float, layer: int) -> Tensor:
    """Returns (gram + damping I)^-1 error (B, C, 1). Without damping directions whose eigenvalue is rounding of zero are left out."""
    finite = gram.isfinite().all()
    # In a population one network that is not finite would stop the decomposition of all.
    safe = torch.nan_to_num(gram, 0, 0, 0) + (damping + ~finite) * torch.eye(
        gram.shape[1], dtype=gram.dtype, device=gram.device
    )
    try:
        solved = torch.linalg.solve(safe, error) if damping else torch.linalg.pinv(safe, hermitian=True) @ error
    except torch.linalg.LinAlgError as failure:  # type: ignore[attr-defined]  # it is documented, but not exported
        raise UserError(
            f"GNT: no pseudo-inverse of J J^T at hidden layer {layer} ({one_line(failure)}); set a damping above 0"
        ) from failure
    return torch.where(finite, solved, torch.full_like(solved, torch.nan))


def step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the update, with an output target one loss gradient away."""
    clean = Clean(network, parameters, feedback, forward(network, parameters, batch.images), {})
    return update(loss, clean, batch, 1.0, partial(targets, damping=settings.damping))


RULE = UpdateRule(name="GNT", settings=Settings, step=step, connected=("uu",), plastic=("uu",))
