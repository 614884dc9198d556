"""The training loop: Adam on two parameter groups, a history per epoch, a checkpoint per epoch."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from creditflow import files, runtime
from creditflow.data.prepared import Subset, to_unit_interval
from creditflow.errors import UserError
from creditflow.learning import apply_rule, feedback_state
from creditflow.models import ImageClassifier
from creditflow.training.accuracy import correct_predictions


@dataclass(frozen=True)
class TrainingSettings:
    """Hyper-parameters of one training run.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per update; the last, smaller batch of an epoch counts too.
        learning_rate: of everything but the head.
        head_learning_rate: of the head; None means the same.
        weight_decay: L2 term that Adam adds to the gradient, on all parameters.
        beta1, beta2: Adam's averaging.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float | None = None
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        head_rate = self.learning_rate if self.head_learning_rate is None else self.head_learning_rate
        if not (0 < self.learning_rate < math.inf and 0 < head_rate < math.inf):
            raise ValueError("learning rates must be positive and finite")
        if not (0 <= self.weight_decay < math.inf and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError("weight_decay must be at least 0, beta1 and beta2 in [0, 1)")


@dataclass(frozen=True)
class Resume:
    """Where a run keeps its checkpoint, and the fingerprint of all that determines the run."""

    path: Path
    identity: str


@dataclass
class _Run:
    """Everything that changes while a model trains, so that saving it is saving the run."""

    model: ImageClassifier
    view: nn.Module
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    history: list[dict[str, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {
            "feedback": feedback_state(self.view),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "history": self.history,
        }


def train(
    model: ImageClassifier,
    rule: str,
    data: Subset,
    test: Subset,
    settings: TrainingSettings,
    *,
    seed: int,
    stream: str,
    resume: Resume | None = None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Trains `model` in place with cross-entropy, its error going down through the rule's feedback weights.

    Data order and feedback draw from generators named by `stream` and `seed`. With `resume`, a checkpoint is written
    after each epoch and picked up again; on the same CPU a resumed run ends bit for bit where an undisturbed one does.

    Args:
        model: on its device; data and test must be on the same one.
        data, test: test accuracy goes into the history and influences nothing.
        on_epoch: called with each history row: epoch, loss, train_accuracy (running), test_accuracy.

    Returns:
        The feedback state at the end, and the history.

    Raises:
        UserError: a rule that is not there or does not fit the model; a loss that is no longer finite.
    """
    device = data.images.device
    run = _start(model, rule, settings, seed, stream, device, resume)
    for epoch in range(len(run.history) + 1, settings.epochs + 1):
        loss, train_accuracy = _epoch(run, data, settings.batch_size, f"epoch {epoch}/{settings.epochs}")
        if not torch.isfinite(torch.tensor(loss)):
            raise UserError(f"the loss became {loss} in epoch {epoch}; lower the learning rate ({settings.learning_rate})")
        test_accuracy = float(correct_predictions(run.view, test).float().mean())
        run.history.append({"epoch": epoch, "loss": loss, "train_accuracy": train_accuracy, "test_accuracy": test_accuracy})
        if resume is not None:
            runtime.save_checkpoint(resume.path, resume.identity, run.state())
        on_epoch(run.history[-1])
    return feedback_state(run.view), run.history


def _start(
    model: ImageClassifier,
    rule: str,
    settings: TrainingSettings,
    seed: int,
    stream: str,
    device: torch.device,
    resume: Resume | None,
) -> _Run:
    saved = runtime.load_checkpoint(resume.path, resume.identity, files.warn) if resume is not None else None
    feedback = runtime.generator(stream, "feedback", seed, device=device)
    order = runtime.generator(stream, "order", seed)
    if saved is not None:
        model.load_state_dict(saved["model"])
        order.set_state(saved["order"])
    view = apply_rule(model, rule, generator=feedback, state=saved["feedback"] if saved else None)
    run = _Run(model, view, _optimizer(model, settings), order)
    if saved is not None:
        run.optimizer.load_state_dict(saved["optimizer"])
        run.history = saved["history"]
    return run


def _optimizer(model: ImageClassifier, settings: TrainingSettings) -> torch.optim.Optimizer:
    head = list(model.head.parameters())
    of_head = {id(parameter) for parameter in head}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in of_head]
    head_rate = settings.learning_rate if settings.head_learning_rate is None else settings.head_learning_rate
    groups = [{"params": rest, "lr": settings.learning_rate}, {"params": head, "lr": head_rate}]
    betas = (settings.beta1, settings.beta2)
    # Fused: one kernel for all parameters; for small networks a third of the step is saved.
    return torch.optim.Adam(groups, betas=betas, weight_decay=settings.weight_decay, fused=True)


def _epoch(run: _Run, data: Subset, batch_size: int, title: str) -> tuple[float, float]:
    """Returns mean loss and accuracy over the epoch's batches, as they were before each update."""
    run.view.train()
    loss_sum = torch.zeros((), dtype=torch.float64, device=data.images.device)
    n_correct = torch.zeros((), dtype=torch.int64, device=data.images.device)
    for batch in _batches(len(data.labels), batch_size, run.order, title):
        chosen = batch.to(data.images.device)
        labels = data.labels[chosen]
        logits = run.view(to_unit_interval(data.images[chosen]))
        loss = F.cross_entropy(logits, labels)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        run.optimizer.step()
        # Summed on the device: reading a number each step would make a GPU wait.
        loss_sum += loss.detach() * len(labels)
        n_correct += (logits.detach().argmax(1) == labels).sum()
    return float(loss_sum) / len(data.labels), int(n_correct) / len(data.labels)


def _batches(n_images: int, batch_size: int, order: torch.Generator, title: str) -> Iterator[Tensor]:
    batches = torch.randperm(n_images, generator=order).split(batch_size)
    yield from tqdm(batches, desc=title, leave=False, disable=not sys.stderr.isatty())
