"""SAL, self-assembling learning (Liao, Ziyin, Gan et al., 2024): four plastic pathways between an ascending and a
descending stream.

Hidden layers are k = 1 .. n - 1, the output is n. With u_k the descending activity of layer k (e_k units), the pathways
are W_k (up), Wb_k (e_k, e_{k+1}, down), V_k (e_k, d_k, up to down) and Vb_k (d_k, e_k, down to up); Vb_n is the
identity. Then

    u_n = -dF/dz_n,  u_k = D_k Wb_k u_{k+1},                                     (2)
    dW_k = Vb_k u_k h_{k-1}^T,  dV_k = u_k h_k^T,  dWb_k = V_k h_k u_{k+1}^T,  dVb_k = h_k u_k^T,   (5) to (8)

where each is a mean over the batch with its own learning rate, minus a decay. The decay is either `shrinkage` of the
optimiser (outside the rate, as in the equations) or `weight_decay` (inside it, as in the paper's pseudo-code).
Every example sends its own error down. The mean is taken last, in the products, so that D_k acts on errors whose size
does not depend on the size of the batch.

With `upstream_mask`, dW_k = (D_u Vb_k u_k) h_{k-1}^T, where D_u = 1[z_k > 0] is the mask of the layer itself. It is
part of the gradient in Theorem 1, and equation 5 leaves it out.
docs/methods.md lists where the paper contradicts itself.
"""

import math

import torch
from torch import Tensor

from creditflow.core.errors import UserError
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, forward
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules.settings.sal import Settings
from creditflow.populations.spectra import effective_rank_of, singular_values


def widths(network: Network, settings: Settings) -> list[int]:
    """Returns the widths e_1 .. e_n of the descending stream.

    Raises UserError unless there is one for each hidden layer.
    """
    hidden = list(network.widths[1:-1])
    chosen = hidden if settings.downstream is None else list(settings.downstream)
    if len(chosen) != len(hidden):
        raise UserError(f"downstream has {len(chosen)} widths, the network has {len(hidden)} hidden layers")
    return [*chosen, network.widths[-1]]


def warnings(network: Network, settings: Settings) -> list[str]:
    """Returns objections of the theory to these widths."""
    pairs = zip(network.widths[1:-1], widths(network, settings), strict=False)
    narrow = [(layer, up, down) for layer, (up, down) in enumerate(pairs, 1) if down < up]
    return [
        f"hidden layer {layer}: {down} descending units for {up} ascending ones,"
        f" so that H = Vb Vb^T has rank {down} at most; Theorem 1 needs e >= d (an overparametrised downstream pathway)"
        for layer, up, down in narrow
    ]


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws V_k, Wb_k and Vb_k of each hidden layer from N(0, scale^2 / n_in)."""
    down, up, state = widths(network, settings), network.widths[1:], {}
    for index in range(network.n_layers - 1):
        shapes = {
            "v": (down[index], up[index]),
            "w_bar": (down[index], down[index + 1]),
            "v_bar": (up[index], down[index]),
        }
        for name, shape in shapes.items():
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            state[f"{name}{index + 1}"] = drawn * settings.scale / math.sqrt(shape[1])
    return state


def step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the update of all plastic pathways, as directions to descend."""
    activity = forward(network, parameters, batch.images, batch.masks)
    n, hidden, share = network.n_layers, activity.inputs, 1 / len(batch.images)
    seen = {k: hidden[k] @ feedback[f"v{k}"].T for k in range(1, n)}  # V_k h_k
    down = descending(network, settings, feedback, -loss.slope(activity.logits, batch.targets), seen)
    directions = {}
    for k in range(1, n + 1):
        taught = down[k] if k == n else down[k] @ feedback[f"v_bar{k}"].T
        if settings.upstream_mask and k < n:
            taught = network.activate.back(taught, activity.hidden[k - 1])
        directions[f"weight{k}"] = (taught.T @ hidden[k - 1]) * -share
        directions[f"bias{k}"] = taught.sum(0) * -share
    for k in range(1, n):
        learned = activity.pre[k - 1] if settings.v_bar_learns_from == "pre" else hidden[k]
        if "v" in settings.plastic:
            directions[f"v{k}"] = -settings.rate_v * share * (down[k].T @ hidden[k])
        if "w_bar" in settings.plastic:
            directions[f"w_bar{k}"] = -settings.rate_w_bar * share * (seen[k].T @ down[k + 1])
        if "v_bar" in settings.plastic:
            directions[f"v_bar{k}"] = -settings.rate_v_bar * share * (learned.T @ down[k])
    return Update(directions, activity.logits)


def descending(
    network: Network, settings: Settings, feedback: Parameters, error: Tensor, seen: dict[int, Tensor]
) -> dict[int, Tensor]:
    """Returns the descending activity u_k (B, e_k) of layers 1 .. n, by equation 2.

    Args:
        error: u_n = -dF/dz_n (B, C) of each example.
        seen: V_k h_k (B, e_k) of each hidden layer.
    """
    down = {network.n_layers: error}
    for k in range(network.n_layers - 1, 0, -1):
        down[k] = _activity(settings.downstream_activation, down[k + 1] @ feedback[f"w_bar{k}"].T, seen[k])
    return down


def _activity(kind: str, received: Tensor, seen: Tensor) -> Tensor:
    """Returns D (Wb u): (B, e)."""
    if kind == "relu_jacobian":
        return received * (seen > 0)
    return {"identity": received, "relu": received.clamp(min=0), "tanh": received.tanh()}[kind]


def measure(network: Network, settings: Settings, parameters: Parameters, feedback: Parameters) -> dict[str, Tensor]:
    """Returns means over hidden layers.

    They are the cosine of Vb_k^T and V_k, which becomes 1 by Lemma 1, and of H_k = Vb_k Vb_k^T the effective rank and
    the mean and the largest eigenvalue. H_k multiplies the learning rate by its eigenvalues.
    """
    layers = range(1, network.n_layers)
    cosines = [
        torch.cosine_similarity(feedback[f"v_bar{k}"].T.flatten(), feedback[f"v{k}"].flatten(), dim=0) for k in layers
    ]
    spectra = [singular_values(feedback[f"v_bar{k}"]).square() for k in layers]
    # H has as many eigenvalues as there are ascending units; those beyond the descending width are 0.
    units = torch.tensor([len(feedback[f"v_bar{k}"]) for k in layers])
    return {
        "v_cosine": torch.stack(cosines).mean(),
        "effective_rank": torch.stack([effective_rank_of(values) for values in spectra]).mean(),
        "h_mean_eigenvalue": (torch.stack([values.sum() for values in spectra]) / units.to(spectra[0])).mean(),
        "h_largest_eigenvalue": torch.stack([values[0] for values in spectra]).mean(),
    }


def measure_batch(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> dict[str, Tensor]:
    """Measures Theorem 1, and the short-term modulation of section 2.3 for each scale s of the setting `modulation`.

    Theorem 1 says that at stationarity dW_k is H_k = Vb_k Vb_k^T times the gradient of W_k.

    After one cycle up and down, the images are sent up again with h_k + s Vb_k u_k in place of each hidden h_k. Where
    Vb_k u_k is minus the gradient of the example's loss with respect to h_k, as the paper says, a small s lowers the
    loss.

    Returns the cosine of dW_k and H_k times the gradient, as a mean over hidden layers. Then, for each s, the mean loss
    after over that before and the share of images whose loss falls; and the cosine of Vb_k u_k and minus the gradient
    of h_k, as a mean over hidden layers and images.
    """
    activity = forward(network, parameters, batch.images)
    slope, layers = loss.slope(activity.logits, batch.targets), range(1, network.n_layers)
    gradients = _activity_gradients(network, parameters, activity, slope)
    directions = step(network, loss, settings, parameters, feedback, Batch(batch.images, batch.targets)).directions
    agreement = []
    for k in layers:
        v_bar, error = feedback[f"v_bar{k}"], network.activate.back(gradients[k], activity.hidden[k - 1])
        predicted = v_bar @ v_bar.T @ (error.T @ activity.inputs[k - 1])
        agreement.append(torch.cosine_similarity(directions[f"weight{k}"].flatten(), predicted.flatten(), dim=0))
    rows = {"theorem_cosine": torch.stack(agreement).mean()}
    if not settings.modulation:
        return rows
    seen = {k: activity.inputs[k] @ feedback[f"v{k}"].T for k in layers}
    down = descending(network, settings, feedback, -slope, seen)
    signals = {k: down[k] @ feedback[f"v_bar{k}"].T for k in layers}
    cosines = [torch.cosine_similarity(signals[k], -gradients[k], dim=-1) for k in layers]
    before = loss.value(activity.logits, batch.targets)
    rows["modulation_cosine"] = torch.stack(cosines).mean()
    for scale in settings.modulation:
        after = loss.value(_modulated(network, parameters, batch.images, signals, scale), batch.targets)
        # A scale that is too large must not count as a network that has diverged: what overflows is the largest number.
        limits = torch.finfo(after.dtype)
        ratio = after.mean() / before.mean().clamp_min(limits.tiny)
        rows[f"modulation_loss_scale{scale:g}"] = ratio.nan_to_num(nan=limits.max, posinf=limits.max)
        rows[f"modulation_helps_scale{scale:g}"] = (after < before).to(before.dtype).mean()
    return rows


def _activity_gradients(network: Network, parameters: Parameters, activity: Pass, slope: Tensor) -> dict[int, Tensor]:
    """Returns the gradients (B, d_k) of each example's loss with respect to the hidden h_k, from that of the logits."""
    error, gradients = slope, {}
    for k in range(network.n_layers - 1, 0, -1):
        gradients[k] = error @ parameters[f"weight{k + 1}"]
        error = network.activate.back(gradients[k], activity.hidden[k - 1])
    return gradients


def _modulated(
    network: Network, parameters: Parameters, images: Tensor, signals: dict[int, Tensor], scale: float
) -> Tensor:
    """Returns the logits (B, C) with h_k + scale times the signal (B, d_k) in place of each hidden h_k."""
    h = images
    for k in range(1, network.n_layers):
        z = h @ parameters[f"weight{k}"].T + parameters[f"bias{k}"]
        h = network.activate.value(z) + scale * signals[k]
    return h @ parameters[f"weight{network.n_layers}"].T + parameters[f"bias{network.n_layers}"]


RULE = UpdateRule(
    title="SAL",
    order=90,
    color="#D55E00",
    marker="*",
    init=init,
    step=step,
    measure=measure,
    measure_batch=measure_batch,
    warnings=warnings,
    connected=("uu", "dd", "ud", "du"),
    plastic=("uu", "dd", "ud", "du"),
)
