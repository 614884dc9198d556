"""GNT: Gauss-Newton targets, what target propagation approximates (Meulemans et al., 2020).

With J_i = dh_L / dh_i and e the loss gradient at the output, the target of each image is

    h_i - J_i^T (J_i J_i^T + damping I)^-1 e,

and without damping h_i - J_i^+ e, with the pseudo-inverse of J_i.
"""

from functools import partial

import torch
from torch import Tensor

from creditflow.core.errors import UserError, one_line
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, forward
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._targets import Clean, update
from creditflow.populations.rules.settings.gnt import Settings


def jacobians(network: Network, parameters: Parameters, activity: Pass) -> dict[int, Tensor]:
    """Returns J_i (B, C, n_i) of each hidden layer."""
    n = len(activity.inputs[0])
    jacobian = parameters[f"weight{network.n_layers}"].expand(n, -1, -1)
    result = {network.n_layers - 1: jacobian}
    for layer in range(network.n_layers - 1, 1, -1):
        hidden = activity.hidden[layer - 1][:, None].expand(jacobian.shape)
        jacobian = network.activate.back(jacobian, hidden) @ parameters[f"weight{layer}"]
        result[layer - 1] = jacobian
    return result


def targets(clean: Clean, output: Tensor, damping: float) -> dict[int, Tensor]:
    """Returns target minus activation (B, n_l) by layer; NaN for a network that has diverged.

    Raises UserError if a pseudo-inverse cannot be computed.
    """
    result, error = {}, output.double()[..., None]
    for layer, jacobian in jacobians(clean.network, clean.parameters, clean.activity).items():
        j = jacobian.double()  # with ten classes J J^T can be ill-conditioned
        solved = _solved(j @ j.transpose(1, 2), error, damping, layer)
        result[layer] = (j.transpose(1, 2) @ solved)[..., 0].to(output.dtype)
    return result


def _solved(gram: Tensor, error: Tensor, damping: float, layer: int) -> Tensor:
    """Returns (gram + damping I)^-1 error (B, C, 1).

    Without damping, directions with an eigenvalue of zero (to rounding) are left out.
    """
    finite = gram.isfinite().all()
    # One network that is not finite would stop the decomposition for the whole population. The sum with a bool would be
    # float32, and so would round the damping.
    diagonal = (~finite).to(gram.dtype) + damping
    safe = torch.nan_to_num(gram, 0, 0, 0) + diagonal * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
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


RULE = UpdateRule(
    title="GNT",
    order=180,
    color="#8B5A2B",
    marker="p",
    step=step,
    connected=("uu",),
    plastic=("uu",),
)
