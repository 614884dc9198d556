"""The entry point of attacks on hash codes: attack queries at all epsilons, and judge the codes of what is proposed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.attacks import guards
from creditflow.attacks.hash_attack import HashAttack, HashProblem
from creditflow.attacks.judge import check_bounds, frozen, perturbation_size
from creditflow.core import plugins
from creditflow.data.prepared import Subset
from creditflow.retrieval.codes import hash_codes


@dataclass(frozen=True)
class HashAttackResult:
    """Outcomes of one attack on one model, on the CPU.

    Attributes:
        codes: int8 (E, N, K) of the perturbed images at each epsilon.
        clean_codes: int8 (N, K).
        perturbation: float32 (E, N), size of what was tried.
        examples: float32 (n, C, H, W), the images of the places `shown` among the chosen, at `shown_epsilon`, to look at.
        mean_output: mean |f| of the clean outputs: where it is large, surrogates such as tanh(f) are flat.
        zero_gradients: share of images and steps at which the gradient was exactly zero.
    """

    codes: Tensor
    clean_codes: Tensor
    perturbation: Tensor
    examples: Tensor
    mean_output: float
    zero_gradients: float


def get_hash_attack(name: str) -> HashAttack:
    """Returns the attack with this id (a file in `attacks/hashing`). Raises UserError if there is none."""
    attack: HashAttack = plugins.load("hash_attack", name).ATTACK
    return attack


def run_hash_attack(
    attack: HashAttack,
    settings: Any,
    model: nn.Module,
    queries: Subset,
    chosen: Tensor,
    train_codes: Tensor,
    train_labels: Tensor,
    epsilons: Sequence[float],
    *,
    batch_size: int,
    seed: int,
    shown: Sequence[int] = (),
    shown_epsilon: float | None = None,
) -> HashAttackResult:
    """Attacks the chosen queries in batches, at each epsilon; what happens to an image does not depend on its batch.

    The model runs in eval mode; its parameters collect no gradient, and its flags and modes are restored.

    Raises:
        UserError: epsilons that do not rise.
        RuntimeError: the attack broke its bounds.
    """
    guards.check_epsilons(list(epsilons))
    train_codes, train_labels = train_codes.to(queries.device), train_labels.to(queries.device)
    codes, clean, sizes, magnitude, zero = [], [], [], 0.0, []
    examples: list[Tensor] = []
    first = 0
    with frozen(model):
        parts = chosen.split(batch_size)
        for part, (images, labels) in zip(parts, queries.batches(parts), strict=True):
            problem = HashProblem(
                model, images, labels, train_codes, train_labels, tuple((seed, index) for index in part.tolist())
            )
            clean.append(hash_codes(problem.outputs).cpu())
            magnitude += float(problem.outputs.abs().mean(1).sum())
            of_batch = [attack.propose(problem, epsilon, settings) for epsilon in epsilons]
            zero += problem.zero_gradients
            sizes.append(
                torch.stack([perturbation_size(proposed - images, attack.norm) for proposed in of_batch]).cpu()
            )
            for proposed, size, epsilon in zip(of_batch, sizes[-1], epsilons, strict=True):
                check_bounds(proposed, size, epsilon)
                if epsilon == shown_epsilon:
                    examples += [proposed[place - first].cpu() for place in shown if first <= place < first + len(part)]
            first += len(part)
            codes.append(torch.stack([hash_codes(_outputs(model, proposed)).cpu() for proposed in of_batch]))
    return HashAttackResult(
        torch.cat(codes, 1),
        torch.cat(clean),
        torch.cat(sizes, 1),
        torch.stack(examples) if examples else torch.empty(0),
        magnitude / len(chosen),
        float(torch.stack(zero).mean()) if zero else 0.0,
    )


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    outputs: Tensor = model(images)
    return outputs
