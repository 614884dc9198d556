"""SAL, self-assembling learning (Liao, Ziyin, Gan et al., 2024): four plastic pathways between an ascending and a descending stream.

Hidden layers are k = 1 .. n - 1, the output is n. With u_k the descending activity of layer k (e_k units), the pathways are W_k (up),
Wb_k (e_k, e_{k+1}, down), V_k (e_k, d_k, up to down) and Vb_k (d_k, e_k, down to up); Vb_n is the identity. Then

    u_n = -dF/dz_n,  u_k = D_k Wb_k u_{k+1},                                     (2)
    dW_k = Vb_k u_k h_{k-1}^T,  dV_k = u_k h_k^T,  dWb_k = V_k h_k u_{k+1}^T,  dVb_k = h_k u_k^T,   (5) to (8)

means over the batch, each with its own rate, less a decay: `shrinkage` of the optimiser (outside the rate, as in the equations) or
`weight_decay` (inside it, as in the paper's pseudo-code). docs/methods.md lists where the paper contradicts itself.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from creditflow.core.errors import UserError
from creditflow.core.plugins import suggestion
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.spectra import effective_rank_of, singular_values

PATHWAYS = ("w", "v", "w_bar", "v_bar")
_DOWNSTREAM = ("identity", "relu_jacobian", "relu", "tanh")


@dataclass(frozen=True)
class Settings:
    """SAL's own choices.

    Attributes:
        downstream: units e_k of the descending stream at each hidden layer; as many as ascending ones if absent.
        downstream_activation: D_k: "identity", the paper's default; "relu_jacobian", which opens where V_k h_k > 0; "relu" and "tanh" of
            Wb_k u_{k+1}.
        rate_v, rate_w_bar, rate_v_bar: rates of these pathways in units of W's, the learning rate.
        plastic: pathways that learn; W always does.
        v_bar_learns_from: "post", h_k as in equation 8, or "pre", z_k as in the paper's pseudo-code and its equation 11.
        scale: standard deviation of the initial V, Wb and Vb in units of 1 / sqrt(n_in).
    """

    downstream: list[int] | tuple[int, ...] | None = None
    downstream_activation: str = "identity"
    rate_v: float = 1.0
    rate_w_bar: float = 1.0
    rate_v_bar: float = 1.0
    plastic: list[str] | tuple[str, ...] = PATHWAYS
    v_bar_learns_from: str = "post"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.downstream is not None and any(not isinstance(width, int) or width < 1 for width in self.downstream):
            raise ValueError("downstream must be widths of at least 1, one for each hidden layer")
        if self.downstream_activation not in _DOWNSTREAM:
            raise ValueError(
                f"downstream_activation must be one of {', '.join(_DOWNSTREAM)}, not {self.downstream_activation!r}"
            )
        if not all(0 <= rate < math.inf for rate in (self.rate_v, self.rate_w_bar, self.rate_v_bar, self.scale)):
            raise ValueError("rates and scale must be at least 0 and finite")
        for name in self.plastic:
            if name not in PATHWAYS:
                raise ValueError(f"plastic: unknown pathway {name!r}{suggestion(str(name), list(PATHWAYS))}")
        if "w" not in self.plastic:
            raise ValueError("plastic: w must be among them, or nothing is learned")
        if self.v_bar_learns_from not in ("post", "pre"):
            raise ValueError(f"v_bar_learns_from must be 'post' or 'pre', not {self.v_bar_learns_from!r}")


def widths(network: Network, settings: Settings) -> list[int]:
    """Returns e_1 .. e_n. Raises UserError if there are not as many as hidden layers."""
    hidden = list(network.widths[1:-1])
    chosen = hidden if settings.downstream is None else list(settings.downstream)
    if len(chosen) != len(hidden):
        raise UserError(f"downstream has {len(chosen)} widths, the network has {len(hidden)} hidden layers")
    return [*chosen, network.widths[-1]]


def warnings(network: Network, settings: Settings) -> list[str]:
    """Returns what the theory says against these widths."""
    pairs = zip(network.widths[1:-1], widths(network, settings), strict=False)
    narrow = [(layer, up, down) for layer, (up, down) in enumerate(pairs, 1) if down < up]
    return [
        f"hidden layer {layer}: {down} descending units for {up} ascending ones, so that H = Vb Vb^T has rank {down} at most;"
        " Theorem 1 needs e >= d (an overparametrised downstream pathway)"
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
    found = forward(network, parameters, batch.images, batch.masks)
    n, hidden = network.n_layers, found.inputs
    down = {n: -loss.slope(found.logits, batch.targets) / len(batch.images)}
    seen = {k: hidden[k] @ feedback[f"v{k}"].T for k in range(1, n)}  # V_k h_k
    for k in range(n - 1, 0, -1):
        down[k] = _activity(settings.downstream_activation, down[k + 1] @ feedback[f"w_bar{k}"].T, seen[k])
    directions = {}
    for k in range(1, n + 1):
        taught = down[k] if k == n else down[k] @ feedback[f"v_bar{k}"].T
        directions[f"weight{k}"] = -(taught.T @ hidden[k - 1])
        directions[f"bias{k}"] = -taught.sum(0)
    for k in range(1, n):
        learned = found.pre[k - 1] if settings.v_bar_learns_from == "pre" else hidden[k]
        if "v" in settings.plastic:
            directions[f"v{k}"] = -settings.rate_v * (down[k].T @ hidden[k])
        if "w_bar" in settings.plastic:
            directions[f"w_bar{k}"] = -settings.rate_w_bar * (seen[k].T @ down[k + 1])
        if "v_bar" in settings.plastic:
            directions[f"v_bar{k}"] = -settings.rate_v_bar * (learned.T @ down[k])
    return Update(directions, found.logits)


def _activity(kind: str, received: Tensor, seen: Tensor) -> Tensor:
    """Returns D (Wb u): (B, e)."""
    if kind == "relu_jacobian":
        return received * (seen > 0)
    return {"identity": received, "relu": received.clamp(min=0), "tanh": received.tanh()}[kind]


def measure(network: Network, settings: Settings, parameters: Parameters, feedback: Parameters) -> dict[str, Tensor]:
    """Returns means over hidden layers: the cosine of Vb_k^T and V_k (Lemma 1 makes it 1), and of H_k = Vb_k Vb_k^T the effective rank
    and the mean and largest eigenvalue, by which it multiplies the learning rate."""
    layers = range(1, network.n_layers)
    cosines = [
        torch.cosine_similarity(feedback[f"v_bar{k}"].T.flatten(), feedback[f"v{k}"].flatten(), dim=0) for k in layers
    ]
    spectra = [singular_values(feedback[f"v_bar{k}"]).square() for k in layers]
    units = torch.tensor(
        [len(feedback[f"v_bar{k}"]) for k in layers]
    )  # of which those beyond the descending width have eigenvalue 0
    return {
        "v_cosine": torch.stack(cosines).mean(),
        "effective_rank": torch.stack([effective_rank_of(values) for values in spectra]).mean(),
        "h_mean_eigenvalue": (torch.stack([values.sum() for values in spectra]) / units.to(spectra[0])).mean(),
        "h_largest_eigenvalue": torch.stack([values[0] for values in spectra]).mean(),
    }


RULE = UpdateRule(
    name="SAL",
    settings=Settings,
    init=init,
    step=step,
    warnings=warnings,
    measure=measure,
    plastic=("uu", "dd", "ud", "du"),
    connected=("uu", "dd", "ud", "du"),
)
