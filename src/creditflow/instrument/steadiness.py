"""Whether a network always computes the same: after other images, in larger batches, inside and outside of no_grad.

Attacks look for images with some calls of the network, and a later call inside `torch.no_grad` judges these images. A
network that remembers images, or that tells the two kinds of call apart, can answer one way to the attacker and another
way to the judge. No accuracy of such a network means anything, so an audit refuses it.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from creditflow.attacks.judge import frozen
from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.instrument.run import Plan
from creditflow.instrument.subjects import Subject, called

#: Copies of subjects with their networks, by the `id` of the subject; a network that cannot be copied has none.
Copies = dict[int, Subject]

#: At most so many images are looked at.
_IMAGES = 64

#: Of so many images the check of a gradient looks at once.
_FEW = 8

#: Two gradients are the same if they differ by at most this share of their norm.
_SAME_GRADIENT = 0.1

#: Two outputs are the same if they differ by at most this share of their norm. Kernels for other batches round in
#: another way, and those of layers that have a faster path inside `torch.no_grad` do so, too.
_ROUNDING = 1e-2


@dataclass(frozen=True)
class Answers:
    """What a network answered before it was attacked.

    Attributes:
        clean: the first images (n, C, H, W), in [0, 1].
        moved: the same, moved at random as far as an attack may.
        at_clean, at_moved: the network's logits (n, K) there.
    """

    clean: Tensor
    moved: Tensor
    at_clean: Tensor
    at_moved: Tensor


def copies(subjects: Iterable[Subject]) -> Copies:
    """Returns copies of networks that no one has called yet, with what these remember."""
    made: Copies = {}
    for subject in subjects:
        try:
            made[id(subject)] = replace(subject, network=deepcopy(subject.network))
        except Exception:  # whatever somebody's model raises; the order of calls is checked without a copy, too
            continue
    return made


def first_answers(plan: Plan, subject: Subject, untouched: Subject | None) -> Answers:
    """Asks a network at moved images and then at clean ones, and a copy of it at clean ones first.

    Args:
        plan: the images, and how far they are moved.
        subject: the network.
        untouched: a copy of it that has not been called yet, or None.

    Raises:
        UserError: if answers depend on earlier calls, if the network computes something else inside `torch.no_grad`, or
            if its backward pass is another one in a batch of the size of an attack's than in small ones.
    """
    clean = plan.inputs.images[:_IMAGES].to(plan.device)
    noise = torch.rand(clean.shape, generator=randomness.generator("steadiness", plan.seed)).to(plan.device)
    moved = (clean + (2 * noise - 1) * max(plan.unit_epsilons)).clamp(0, 1)
    at_moved = _logits(subject, moved, plan)
    answers = Answers(clean, moved, _logits(subject, clean, plan), at_moved)
    check_answers(plan, subject, answers, "a second call at the same images")
    if untouched is not None and not _same(_logits(untouched, clean, plan), answers.at_clean):
        raise _remembers(subject, "a call that follows calls at other images")
    if not _same(answers.at_moved, _graph_logits(subject, moved, plan)):
        raise UserError(
            f"{subject} computes something else inside torch.no_grad(): attacks follow the one and are judged by the"
            " other, so no accuracy would mean anything; make both the same"
        )
    if _backward_depends_on_batch(plan, subject):
        raise UserError(
            f"{subject} has another backward pass in large batches than in batches of {_FEW}: a check of a few"
            " images says nothing of it then; make both the same"
        )
    return answers


def check_answers(plan: Plan, subject: Subject, answers: Answers, when: str) -> None:
    """Raises UserError if a network no longer answers as at first; `when` says at which call, for the message."""
    for images, known in ((answers.moved, answers.at_moved), (answers.clean, answers.at_clean)):
        if not _same(known, _logits(subject, images, plan)):
            raise _remembers(subject, when)


def _remembers(subject: Subject, when: str) -> UserError:
    return UserError(
        f"{subject} gives other outputs at {when}, although all global seeds are fixed: they depend on what it has seen"
        " before; reset its state in forward, and draw random numbers from torch's global generator"
    )


def _backward_depends_on_batch(plan: Plan, subject: Subject) -> bool:
    """Returns whether outputs are the same in small batches, and their gradients are not."""
    images = plan.inputs.images[: plan.batch_size].to(plan.device)
    try:
        at_once, few = _gradients(subject, images, len(images)), _gradients(subject, images, _FEW)
    except Exception:  # whatever a backward pass raises; `check_gradient` says what it is worth
        return False
    gap = float((at_once[1] - few[1]).norm())
    return _same(at_once[0], few[0]) and gap > _SAME_GRADIENT * float(at_once[1].norm())


def _gradients(subject: Subject, images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns the logits (N, K) of batches of a size, and the gradients of a random projection of them."""
    logits, gradients = [], []
    with frozen(subject.network), torch.enable_grad():
        for part in images.split(size):
            x = part.clone().requires_grad_()
            logits.append(called(subject, x))
            start = sum(map(len, logits)) - len(part)
            weights = torch.randn(len(images), logits[-1].shape[1], generator=randomness.generator("steadiness"))
            (gradient,) = torch.autograd.grad((weights[start : start + len(part)].to(x) * logits[-1]).sum(), x)
            gradients.append(gradient)
    return torch.cat(logits).detach(), torch.cat(gradients)


def _logits(subject: Subject, images: Tensor, plan: Plan) -> Tensor:
    with frozen(subject.network), randomness.global_seed("steadiness", plan.seed), torch.no_grad():
        return called(subject, images).detach().clone()


def _graph_logits(subject: Subject, images: Tensor, plan: Plan) -> Tensor:
    with frozen(subject.network), randomness.global_seed("steadiness", plan.seed), torch.enable_grad():
        return called(subject, images.clone().requires_grad_()).detach()


def _same(first: Tensor, second: Tensor) -> bool:
    """Returns whether two outputs are equal but for rounding; what is not finite is refused elsewhere."""
    gap = float((first.double() - second.double()).norm())
    return not gap > _ROUNDING * float(first.double().norm())
