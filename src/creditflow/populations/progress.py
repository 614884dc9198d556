"""What is noted of a population at the end of each epoch: who diverged, who got better, who stops."""

import torch
from torch import Tensor

from creditflow.populations.population import Population, norms
from creditflow.populations.settings import PopulationSettings


def note_epoch(
    population: Population, settings: PopulationSettings, first_bad_step: Tensor, n_steps: int, rows: dict[str, Tensor]
) -> None:
    """Notes the epoch's numbers, divergence and stops; keeps the parameters of members that are better than before.

    Args:
        first_bad_step: (P,) the step of this epoch (0, 1, ...) at which a member's loss was not finite; `n_steps` if it
            always was.
        n_steps: steps of an epoch.
        rows: numbers (P,) by name, float64 on the CPU.
    """
    _note_divergence(population, first_bad_step, n_steps, rows)
    running = (population.diverged == 0) & (population.stopped == 0)
    _keep_better(population, running, _score(population, settings, rows))
    for index in running.nonzero().flatten().tolist():
        numbers = {name: float(value[index]) for name, value in rows.items()}
        population.history[index].append({"epoch": population.epoch} | numbers)
    if settings.patience is not None:
        out = running & (population.epoch - population.best_epoch >= settings.patience)
        population.stopped = torch.where(out, population.epoch, population.stopped)


def _note_divergence(population: Population, first_bad_step: Tensor, n_steps: int, rows: dict[str, Tensor]) -> None:
    sizes = norms(population.parameters)
    feedback_sizes = [norms(population.feedback)] if population.feedback else []
    finite = torch.stack([sizes, *feedback_sizes, *rows.values()]).isfinite().all(0)
    # The loss of the last step was computed before that step: what is not finite now broke in it.
    bad = torch.where(finite, first_bad_step, first_bad_step.clamp(max=n_steps - 1))
    newly = (bad < n_steps) & (population.diverged == 0)
    population.diverged = torch.where(newly, (population.epoch - 1) * n_steps + bad + 1, population.diverged)
    population.norm = torch.where(population.diverged == 0, sizes, population.norm)


def _score(population: Population, settings: PopulationSettings, rows: dict[str, Tensor]) -> Tensor:
    """Returns what members are chosen by (P,); the epoch itself where the last one is to be taken."""
    if settings.select == "last":
        return torch.full_like(population.best_score, population.epoch)
    kind = "adversarial_accuracy" if settings.select == "adversarial" else "accuracy"
    return rows[f"{settings.select_on}_{kind}"]


def _keep_better(population: Population, running: Tensor, score: Tensor) -> None:
    better = running & (score > population.best_score)
    population.best_score = torch.where(better, score, population.best_score)
    population.best_epoch = torch.where(better, population.epoch, population.best_epoch)
    pairs = (population.best, population.parameters), (population.best_feedback, population.feedback)
    for kept, present in pairs:
        for name, value in kept.items():
            chosen = better.to(value.device)
            value[chosen] = present[name][chosen]
