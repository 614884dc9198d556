"""The training loop: Adam with one rate for the head and one for the rest, a history, and a checkpoint per epoch."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from creditflow.compute.checkpoints import Resume, load_checkpoint, save_checkpoint
from creditflow.compute.device import no_denormals
from creditflow.compute.randomness import Streams
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.matched import HEAD_ONLY
from creditflow.data.prepared import Subset
from creditflow.data.settings import Augmentation
from creditflow.feedback.apply import apply_rule, feedback_layers, feedback_state
from creditflow.feedback.proof import prove
from creditflow.models.build import ImageClassifier, body_parameters
from creditflow.training.accuracy import correct_predictions
from creditflow.training.alignment import alignment
from creditflow.training.decay import LayerDecay, first_decay
from creditflow.training.modes import set_training_mode
from creditflow.training.part import training_part
from creditflow.training.settings import TrainingSettings, scale_of
from creditflow.training.task import Classification, Task, TrainingData

#: A loss that is no longer finite is noticed after this number of steps at the latest. A GPU would have to wait if a
#: number was read in each step.
_LOOK_EVERY = 50

#: Images that prove a rule before a view is compiled. Batch normalisation needs two at least.
_PROVING = 2


@dataclass(frozen=True)
class Stop:
    """Where a training ends before its last epoch: as soon as the accuracy on the test images is high enough.

    Attributes:
        accuracy: the accuracy, from 0 to 1.
        looks: how often it is measured in an epoch, at equal distances.
    """

    accuracy: float
    looks: int = 50


@dataclass
class _Run:
    """Everything that changes while a model trains: whoever saves this saves the run."""

    model: ImageClassifier
    task: Task
    view: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    changes: torch.Generator
    rule: str
    stop: Stop | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    decay: list[LayerDecay] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {
            "feedback": feedback_state(self.view),
            "model": self.model.state_dict(),
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "changes": self.changes.get_state(),
            "history": self.history,
            "decay": [asdict(row) for row in self.decay],
        }


def train(
    model: ImageClassifier,
    rule: str,
    data: TrainingData,
    settings: TrainingSettings,
    streams: Streams,
    *,
    task: Task | None = None,
    resume: Resume | None = None,
    stop: Stop | None = None,
    on_start: Callable[[Sequence[LayerDecay]], None] = lambda rows: None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Trains `model` in place. The error of the task's loss goes down through the feedback weights of the rule.

    With `resume`, a checkpoint is written after each epoch, and a later call goes on from it. On the same CPU a resumed
    run ends bit for bit where an undisturbed run ends.

    Args:
        model: the network, on its device.
        rule: id of a feedback rule, or the name of a control (see `core.matched`).
        data: training and test images, on the device of the model. With `settings.train_images` only a part of the
            training images is used.
        settings: the hyper-parameters.
        streams: where the order of the images, the augmentation, dropout and the feedback get their random numbers.
        task: what the network is trained for; classification if None. If the task has parameters, they are trained
            along, by their exact gradient.
        resume: the checkpoint; None for none.
        stop: the accuracy at which the training ends, perhaps within an epoch; None for all epochs. Looking at the
            accuracy changes nothing: until it ends, the training is the one without a stop.
        on_start: called before the first step with what `below_decay` measures on the first batch. There are no rows
            without weight decay. A run that goes on from a checkpoint gives the rows of its start.
        on_epoch: called with each row of the history: epoch, loss, train_accuracy (running), what the task measures,
            and what `alignment` measures where the settings ask for it.

    Returns:
        The feedback state at the end, as `feedback_state` gives it, and the history.

    Raises:
        UserError: the rule does not exist or does not fit the model; the loss is no longer finite (the message names
            epoch, batch and rate); an image file cannot be read; the accuracy of `stop` is never reached; there are
            fewer training images than `settings.train_images`.
    """
    data = replace(data, train=training_part(data.train, settings.train_images))
    run = _start(model, rule, data, settings, streams, task or Classification(), resume)
    run.stop = stop
    on_start(run.decay)
    n_probe = 0 if rule == HEAD_ONLY else settings.angle_images  # nothing below the head is updated then
    probe = torch.randperm(len(data.train.labels), generator=streams.generator("probe"))[:n_probe]
    for epoch in range(len(run.history) + 1, settings.epochs + 1):
        # Dropout draws from the global generator, which is seeded for each epoch: a resumed run sees the same masks.
        with streams.global_seed("dropout", epoch), no_denormals():
            row = {"epoch": epoch} | _epoch(run, data, settings, epoch)
        row |= run.task.measure(run.view, data.train, data.test)
        if len(probe):
            row |= alignment(model, run.view, run.task, *data.train.batch(probe))
        run.history.append(row)
        if resume is not None:
            save_checkpoint(resume.path, resume.identity, run.state())
        on_epoch(row)
        if stop is not None and row["test_accuracy"] >= stop.accuracy:
            return feedback_state(run.view), run.history
    if stop is not None:
        raise UserError(
            f"the accuracy did not reach {stop.accuracy:.2%} in {settings.epochs} epochs, so that no network is as"
            " accurate; train for more epochs, or take the rule out of `matched`"
        )
    return feedback_state(run.view), run.history


def _start(
    model: ImageClassifier,
    rule: str,
    data: TrainingData,
    settings: TrainingSettings,
    streams: Streams,
    task: Task,
    resume: Resume | None,
) -> _Run:
    """Returns the run at its beginning, or where its checkpoint left it."""
    saved = load_checkpoint(resume.path, resume.identity, files.warn) if resume is not None else None
    device = data.train.device
    feedback = streams.generator("feedback")  # of the CPU: a seed gives the same feedback on every device
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if saved is not None:
        model.load_state_dict(saved["model"])
        task.load_state_dict(saved["task"])
    view = apply_rule(
        model, rule, generator=feedback, state=saved["feedback"] if saved else None, scale=scale_of(settings)
    )
    task.to(device)
    run = _Run(
        model=model,
        task=task,
        view=view,
        forward=_compiled(view.train(), data.train) if settings.compile else view,
        optimizer=_optimizer(model, task, settings, rule),
        order=streams.generator("order"),
        changes=streams.generator("augmentation"),
        rule=rule,
    )
    if saved is not None:
        run.order.set_state(saved["order"])
        run.changes.set_state(saved["changes"])
        run.optimizer.load_state_dict(saved["optimizer"])
        run.history = saved["history"]
        run.decay = [LayerDecay(**row) for row in saved["decay"]]
    else:
        run.decay = first_decay(model, view, rule, data.train, run.order, settings, task)
    return run


def _compiled(view: nn.Module, data: Subset) -> Callable[[Tensor], Tensor]:
    """Returns the view with its passes fused by `torch.compile`.

    The layers that a rule was put on are left out: the compiler would replace their backward by one of its own. Some
    images prove before that every one of these layers takes part.
    """
    prove(view, data.batch(torch.arange(min(_PROVING, len(data.labels))))[0])
    for _, layer in feedback_layers(view):
        layer.forward = torch.compiler.disable(layer.forward)
    compiled: Callable[[Tensor], Tensor] = torch.compile(view)
    return compiled


def _optimizer(model: ImageClassifier, task: Task, settings: TrainingSettings, rule: str) -> torch.optim.Optimizer:
    head_rate = settings.learning_rate if settings.head_learning_rate is None else settings.head_learning_rate
    groups = [
        {"params": body_parameters(model), "lr": settings.learning_rate},
        {"params": list(model.head.parameters()), "lr": head_rate},
    ]
    if rule == HEAD_ONLY:
        del groups[0]
    if task_parameters := list(task.parameters()):
        task_rate = head_rate if task.learning_rate is None else task.learning_rate
        groups.append({"params": task_parameters, "lr": task_rate})
    betas = (settings.beta1, settings.beta2)
    # Fused means one kernel for all parameters. For small networks this saves a third of the step's time.
    return torch.optim.Adam(groups, betas=betas, weight_decay=settings.weight_decay, fused=True)


def _epoch(run: _Run, images_of: TrainingData, settings: TrainingSettings, epoch: int) -> dict[str, float]:
    """Trains for one epoch; returns the mean loss and the accuracy of its batches, each as it was before its update.

    The epoch ends early where the run is to stop; its means are then over the images that it saw.

    Raises UserError if a loss is not finite.
    """
    data = images_of.train
    set_training_mode(run.view, run.rule, settings)
    n_seen, loss_sum = 0, torch.zeros((), dtype=torch.float64, device=data.device)
    n_correct = torch.zeros((), dtype=torch.int64, device=data.device)
    parts = torch.randperm(len(data.labels), generator=run.order).split(settings.batch_size)
    first_bad = torch.full((), len(parts), device=data.device)
    batches = data.batches(parts, Augmentation(settings.flip, settings.pad), run.changes)
    title, hidden = f"epoch {epoch}/{settings.epochs}", not sys.stderr.isatty()
    for step, (images, labels) in enumerate(tqdm(batches, title, len(parts), leave=False, disable=hidden)):
        loss, outputs = _step(run, images, labels, settings)
        # The sums stay on the device: reading a number in each step would make a GPU wait.
        loss_sum += loss * len(labels)
        n_correct += run.task.is_right(outputs, labels).sum()
        n_seen += len(labels)
        first_bad = torch.where(loss.isfinite(), first_bad, first_bad.clamp(max=step))
        if step % _LOOK_EVERY == 0 or step == len(parts) - 1:
            _check_finite(int(first_bad), len(parts), epoch, settings)
        if run.stop is not None:
            if _is_accurate_enough(run, run.stop, images_of.test, step + 1, len(parts)):
                break
            set_training_mode(run.view, run.rule, settings)  # whoever measures puts all of it into training mode
    return {"loss": float(loss_sum) / n_seen, "train_accuracy": int(n_correct) / n_seen}


def _is_accurate_enough(run: _Run, stop: Stop, test: Subset, steps: int, n_steps: int) -> bool:
    """Says whether the run is to stop after this number of steps of its epoch; it looks `stop.looks` times an epoch."""
    if steps * stop.looks // n_steps == (steps - 1) * stop.looks // n_steps:
        return False
    return float(correct_predictions(run.view, test).float().mean()) >= stop.accuracy


def _step(run: _Run, images: Tensor, labels: Tensor, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """Updates the model with one batch; returns the loss and the outputs as they were before the update."""
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        outputs = run.forward(images)
    # The loss is computed outside autocast: half precision is for the network only.
    loss = run.task(outputs.float(), labels)
    run.optimizer.zero_grad(set_to_none=True)
    # Where the head alone is trained, the backward pass ends there.
    trained = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    loss.backward(inputs=trained if run.rule == HEAD_ONLY else None)
    run.optimizer.step()
    return loss.detach(), outputs.detach()


def _check_finite(first_bad: int, n_batches: int, epoch: int, settings: TrainingSettings) -> None:
    """Raises UserError if a batch, counted from 0, had a loss that is not finite; `n_batches` stands for none."""
    if first_bad == n_batches:
        return
    rate = f"{settings.learning_rate:g}"
    if settings.head_learning_rate is not None:
        rate += f", head {settings.head_learning_rate:g}"
    raise UserError(
        f"the loss is no longer finite in epoch {epoch}, batch {first_bad + 1} of {n_batches}, at learning rate {rate};"
        " lower it (a checkpoint of the epoch before, if there was one, is kept)"
    )
