"""The training loop: Adam on two parameter groups, a history per epoch, a checkpoint per epoch."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from creditflow.compute import randomness
from creditflow.compute.checkpoints import Resume, load_checkpoint, save_checkpoint
from creditflow.compute.device import no_denormals
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.data.inputs import Augmentation
from creditflow.data.prepared import Subset
from creditflow.feedback.apply import apply_rule, feedback_layers, feedback_state
from creditflow.models.build import ImageClassifier
from creditflow.training.alignment import alignment
from creditflow.training.task import Classification, Task

#: Steps after which a loss that is no longer finite is noticed; reading a number each step would make a GPU wait.
_LOOK_EVERY = 50


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
        flip, pad: augmentation, see `Augmentation`.
        precision: "float32", or "bfloat16" for autocast of the forward and backward pass; weights stay float32.
        channels_last: memory format of images and convolutions.
        compile: whether `torch.compile` fuses the passes.
        angle_images: training images on which each epoch ends with a measurement of `alignment`; 0 for none.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float | None = None
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    flip: bool = False
    pad: int = 0
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False
    angle_images: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        head_rate = self.learning_rate if self.head_learning_rate is None else self.head_learning_rate
        if not (0 < self.learning_rate < math.inf and 0 < head_rate < math.inf):
            raise ValueError("learning rates must be positive and finite")
        if not (0 <= self.weight_decay < math.inf and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError("weight_decay must be at least 0, beta1 and beta2 in [0, 1)")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', not {self.precision!r}")
        if self.pad < 0 or self.angle_images < 0:
            raise ValueError("pad and angle_images must be at least 0")

    @property
    def augmentation(self) -> Augmentation:
        """What happens to training images."""
        return Augmentation(self.flip, self.pad)


@dataclass
class _Run:
    """Everything that changes while a model trains, so that saving it is saving the run."""

    model: ImageClassifier
    task: Task
    view: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    changes: torch.Generator
    history: list[dict[str, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {
            "feedback": feedback_state(self.view),
            "model": self.model.state_dict(),
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "changes": self.changes.get_state(),
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
    task: Task | None = None,
    resume: Resume | None = None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Trains `model` in place, the error of the task's loss going down through the rule's feedback weights.

    Data order and feedback draw from generators named by `stream` and `seed`. With `resume`, a checkpoint is written
    after each epoch and picked up again; on the same CPU a resumed run ends bit for bit where an undisturbed one does.

    Args:
        model: on its device; data and test must be on the same one.
        data, test: what is measured on test images goes into the history and influences nothing.
        task: what it is trained for, classification unless given; parameters of its own are trained along, by their exact gradient.
        on_epoch: called with each history row: epoch, loss, train_accuracy (running), what the task measures, and
            `alignment`'s where the settings ask for it.

    Returns:
        The feedback state at the end, and the history.

    Raises:
        UserError: a rule that is not there or does not fit the model; a loss that is no longer finite, with epoch, batch
            and rate; an image file that cannot be read.
    """
    run = _start(model, task or Classification(), rule, settings, seed, stream, data.device, resume)
    probe = torch.randperm(len(data.labels), generator=randomness.generator(stream, "probe", seed))[
        : settings.angle_images
    ]
    for epoch in range(len(run.history) + 1, settings.epochs + 1):
        # Dropout draws from torch's global generator: seeded by epoch, a resumed run sees the same masks.
        with randomness.global_seed(stream, "dropout", seed, epoch), no_denormals():
            row = {"epoch": epoch} | _epoch(run, data, settings, epoch)
        row |= run.task.measure(run.view, data, test)
        if len(probe):
            row |= alignment(model, run.view, run.task, *data.batch(probe))
        run.history.append(row)
        if resume is not None:
            save_checkpoint(resume.path, resume.identity, run.state())
        on_epoch(row)
    return feedback_state(run.view), run.history


def _start(
    model: ImageClassifier,
    task: Task,
    rule: str,
    settings: TrainingSettings,
    seed: int,
    stream: str,
    device: torch.device,
    resume: Resume | None,
) -> _Run:
    saved = load_checkpoint(resume.path, resume.identity, files.warn) if resume is not None else None
    feedback = randomness.generator(stream, "feedback", seed, device=device)
    order = randomness.generator(stream, "order", seed)
    changes = randomness.generator(stream, "augmentation", seed)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if saved is not None:
        model.load_state_dict(saved["model"])
        task.load_state_dict(saved["task"])
        order.set_state(saved["order"])
        changes.set_state(saved["changes"])
    view = apply_rule(model, rule, generator=feedback, state=saved["feedback"] if saved else None)
    task.to(device)
    run = _Run(
        model,
        task,
        view,
        _compiled(view) if settings.compile else view,
        _optimizer(model, task, settings),
        order,
        changes,
    )
    if saved is not None:
        run.optimizer.load_state_dict(saved["optimizer"])
        run.history = saved["history"]
    return run


def _compiled(view: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns the view with its passes fused, but for the layers of a rule: their backward is not the compiler's to derive."""
    for _, layer in feedback_layers(view):
        layer.forward = torch.compiler.disable(layer.forward)
    compiled: Callable[[Tensor], Tensor] = torch.compile(view)
    return compiled


def _optimizer(model: ImageClassifier, task: Task, settings: TrainingSettings) -> torch.optim.Optimizer:
    head = list(model.head.parameters())
    of_head = {id(parameter) for parameter in head}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in of_head]
    head_rate = settings.learning_rate if settings.head_learning_rate is None else settings.head_learning_rate
    groups = [{"params": rest, "lr": settings.learning_rate}, {"params": head, "lr": head_rate}]
    if own := list(task.parameters()):
        groups.append({"params": own, "lr": head_rate if task.learning_rate is None else task.learning_rate})
    betas = (settings.beta1, settings.beta2)
    # Fused: one kernel for all parameters; for small networks a third of the step is saved.
    return torch.optim.Adam(groups, betas=betas, weight_decay=settings.weight_decay, fused=True)


def _epoch(run: _Run, data: Subset, settings: TrainingSettings, epoch: int) -> dict[str, float]:
    """Returns mean loss and accuracy over the epoch's batches, as they were before each update.

    Raises UserError if a loss is not finite.
    """
    run.view.train()
    loss_sum = torch.zeros((), dtype=torch.float64, device=data.device)
    n_correct = torch.zeros((), dtype=torch.int64, device=data.device)
    parts = torch.randperm(len(data.labels), generator=run.order).split(settings.batch_size)
    bad = torch.full((), len(parts), device=data.device)
    title = f"epoch {epoch}/{settings.epochs}"
    batches = tqdm(
        data.batches(parts, settings.augmentation, run.changes),
        title,
        len(parts),
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    for step, (images, labels) in enumerate(batches):
        loss, outputs = _step(run, images, labels, settings)
        # Summed on the device: reading a number each step would make a GPU wait.
        loss_sum += loss * len(labels)
        n_correct += run.task.is_right(outputs, labels).sum()
        bad = torch.where(loss.isfinite(), bad, bad.clamp(max=step))
        if step % _LOOK_EVERY == 0 or step == len(parts) - 1:
            _check_finite(int(bad), len(parts), epoch, settings)
    return {"loss": float(loss_sum) / len(data.labels), "train_accuracy": int(n_correct) / len(data.labels)}


def _step(run: _Run, images: Tensor, labels: Tensor, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """Updates the model; returns the loss and the outputs from before."""
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        outputs = run.forward(images)
    # Outside autocast: half precision is for the network, not for its loss.
    loss = run.task(outputs.float(), labels)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    return loss.detach(), outputs.detach()


def _check_finite(bad: int, n_batches: int, epoch: int, settings: TrainingSettings) -> None:
    if bad < n_batches:
        rate = f"{settings.learning_rate:g}" + (
            "" if settings.head_learning_rate is None else f", head {settings.head_learning_rate:g}"
        )
        raise UserError(
            f"the loss is no longer finite in epoch {epoch}, batch {bad + 1} of {n_batches}, at learning rate {rate}; lower it"
            " (a checkpoint of the epoch before, if there was one, is kept)"
        )
