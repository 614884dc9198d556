"""APGD of pyautoattack for the L-infinity norm, with a loop that leaves an image alone as soon as it is fooled.

The library goes on with fooled images to the last step. Images don't depend on each other, so the outcome of each is
the library's, and a network that is easily fooled costs a fraction of the time.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor
from torch.nn import functional as F

from creditflow.attacks.attack import gradient_of


@dataclass(frozen=True)
class _Run:
    """The images (M, C, H, W) that stand, their labels (M,), and where their ascent is.

    Attributes:
        step: size of the next step (M, 1, 1, 1).
        history: losses (M, steps), zero where they are not known yet.
        best_at_check: best loss (M,) at the last check of the step size.
        halved: whether the last check halved the step size (M,).
        target: classes (M,) that are aimed at, for targeted attacks.
    """

    clean: Tensor
    labels: Tensor
    now: Tensor
    before: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step: Tensor
    history: Tensor
    best_at_check: Tensor
    halved: Tensor
    target: Tensor | None

    def part(self, chosen: Tensor) -> "_Run":
        """Returns some of the images, bool (M,)."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        parts: dict[str, Any] = {name: tensor if tensor is None else tensor[chosen] for name, tensor in tensors.items()}
        return _Run(**parts)


class _LeavesFooled(APGDAttack):  # type: ignore[misc]
    """A mixin before an attack of pyautoattack, whose restarts and targets stay as they are."""

    def attack_single_run(self, x: Tensor, y: Tensor, x_init: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns images (N, C, H, W), whether each stands (N,), its best loss (N,), and the images again.

        A fooled image is the first of its path that fools the model; an image that stands is the last of its path.
        """
        noise = self.normalize(2 * torch.rand(x.shape).to(x.device) - 1)
        run, right = self._begin(x, y, (x + self.eps * noise).clamp(0, 1))
        proposed, stands, losses = run.now.clone(), right.clone(), run.best_loss.clone()
        indices, run = right.nonzero()[:, 0], run if bool(right.all()) else run.part(right)
        span, since_check = self.n_iter_2, 0
        for index in range(self.n_iter):
            if not len(indices):
                break
            run, right = self._ascended(run, index)
            proposed[indices], stands[indices], losses[indices] = run.now, right, run.best_loss
            if not bool(right.all()):
                indices, run = indices[right], run.part(right)
            since_check += 1
            if since_check == span:
                run = self._checked(run, index, span)
                span, since_check = max(span - self.size_decr, self.n_iter_min), 0
        return proposed, stands, losses, proposed

    def _begin(self, x: Tensor, y: Tensor, start: Tensor) -> tuple[_Run, Tensor]:
        gradient, losses, right = self._differentiated(start, y, self.y_target)
        step = torch.full((len(x), 1, 1, 1), 2.0 * self.eps, device=x.device)
        history = torch.zeros((len(x), self.n_iter), device=x.device)
        halved = torch.ones(len(x), dtype=torch.bool, device=x.device)
        run = _Run(x, y, start, start, gradient, start, gradient, losses, step, history, losses, halved, self.y_target)
        return run, right

    def _ascended(self, run: _Run, index: int) -> tuple[_Run, Tensor]:
        """Takes a step with momentum. Returns the run after it, and whether each image is still classified right."""
        share = 0.75 if index > 0 else 1.0
        low, high = (run.clean - self.eps).clamp_min(0), (run.clean + self.eps).clamp_max(1)
        stepped = (run.now + run.step * run.gradient.sign()).maximum(low).minimum(high)
        moved = run.now + (stepped - run.now) * share + (run.now - run.before) * (1 - share)
        moved = moved.maximum(low).minimum(high)
        gradient, losses, right = self._differentiated(moved, run.labels, run.target)
        better = losses > run.best_loss
        wide = better[:, None, None, None]
        run.history[:, index] = losses
        after = replace(
            run,
            now=moved,
            before=run.now,
            gradient=gradient,
            best=torch.where(wide, moved, run.best),
            best_gradient=torch.where(wide, gradient, run.best_gradient),
            best_loss=torch.where(better, losses, run.best_loss),
        )
        return after, right

    def _checked(self, run: _Run, index: int, span: int) -> _Run:
        """Halves the steps of images whose loss rose too seldom; these go on from their best point."""
        steps = torch.arange(index, index - span, -1)
        rises = (run.history[:, steps] > run.history[:, steps - 1]).sum(1)
        halve = (rises <= span * self.thr_decr) | (~run.halved & (run.best_at_check >= run.best_loss))
        wide = halve[:, None, None, None]
        return replace(
            run,
            now=torch.where(wide, run.best, run.now),
            gradient=torch.where(wide, run.best_gradient, run.gradient),
            step=torch.where(wide, run.step / 2, run.step),
            best_at_check=run.best_loss,
            halved=halve,
        )

    def _differentiated(self, x: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the losses' gradient (M, C, H, W), the losses (M,), and whether predictions are right (M,)."""
        self.y_target = target  # the targeted loss reads it there
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.model(x)
            losses = _loss(self, logits, y)
            gradient = gradient_of(losses.sum(), x)
        return gradient, losses.detach(), logits.detach().argmax(1) == y


def _loss(attack: Any, logits: Tensor, labels: Tensor) -> Tensor:
    if attack.loss == "ce":
        return F.cross_entropy(logits, labels, reduction="none")
    ratio: Tensor = (attack.dlr_loss if attack.loss == "dlr" else attack.dlr_loss_targeted)(logits, labels)
    return ratio


class APGD(_LeavesFooled):
    """APGD on the cross-entropy ("ce") or on the difference of logits ratio ("dlr")."""


class TargetedAPGD(_LeavesFooled, APGDAttack_targeted):  # type: ignore[misc]
    """APGD on the targeted difference of logits ratio."""
