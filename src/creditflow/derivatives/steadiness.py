"""Whether a network always computes the same: after other images, in larger batches, inside and outside of no_grad.

Attacks look for images with some calls of the network, and a later call inside `torch.no_grad` judges these images. A
network that remembers images, or that tells the two kinds of call apart, can answer one way to the attacker and another
way to the judge. No accuracy of such a network means anything, so it is refused.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from creditflow.compute import randomness
from creditflow.core.errors import UserError, one_line
from creditflow.derivatives.evidence import Projection
from creditflow.derivatives.frozen import frozen

#: At most so many images are looked at, but for the backward pass.
IMAGES = 64

#: Of so many images `check_gradient` looks at once.
_FEW = 8

#: Two gradients are the same if they differ by at most this share of their norm.
_SAME_GRADIENT = 0.1

#: Two outputs are the same if they differ by at most this share of their norm. Kernels for other batches round in
#: another way, and those of layers that have a faster path inside `torch.no_grad` do so, too.
_ROUNDING = 1e-2


@dataclass(frozen=True)
class Probe:
    """What a network is asked.

    Attributes:
        name: how messages call the network.
        images: images (N, C, H, W) in [0, 1], on its device; as many as an attack takes at once.
        radius: how far an attack may move a pixel.
        seed: seed of the moves, and of what the network draws from torch's global generators.
    """

    name: str
    images: Tensor
    radius: float
    seed: int

    @property
    def clean(self) -> Tensor:
        """The first images."""
        return self.images[:IMAGES]

    @cached_property
    def moved(self) -> Tensor:
        """The first images, moved at random as far as an attack may."""
        noise = torch.rand(self.clean.shape, generator=randomness.generator("steadiness", self.seed))
        return (self.clean + (2 * noise.to(self.clean.device) - 1) * self.radius).clamp(0, 1)


@dataclass(frozen=True)
class Answers:
    """What a network answered first: its logits (n, K) at the clean images and at the moved ones."""

    at_clean: Tensor
    at_moved: Tensor


def untouched(network: nn.Module) -> nn.Module | None:
    """Returns a copy of a network that no one has called yet, with what it remembers; None if it cannot be copied."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        return None  # the parameters of a copy would be results of an operation, whose flags cannot be changed
    try:
        return deepcopy(network)
    except Exception:  # whatever somebody's model raises; the order of calls is checked without a copy, too
        return None


def first_answers(network: nn.Module, probe: Probe, copy: nn.Module | None) -> Answers:
    """Asks a network at moved images and then at clean ones, and a copy of it at clean ones first.

    Args:
        network: gives logits for images in [0, 1].
        probe: what it is asked.
        copy: a copy of it that has not been called yet, or None.

    Raises:
        UserError: if answers depend on earlier calls, if the network computes something else inside `torch.no_grad`, or
            if its backward pass is another one in a batch of the size of an attack's than in small ones.
    """
    at_moved = _logits(network, probe, probe.moved)
    answers = Answers(_logits(network, probe, probe.clean), at_moved)
    check_answers(network, probe, answers, "a second call at the same images")
    if copy is not None and not _same(_logits(copy, probe, probe.clean), answers.at_clean):
        raise _remembers(probe, "a call that follows calls at other images")
    if not _same(answers.at_moved, _graph_logits(network, probe, probe.moved)):
        raise UserError(
            f"{probe.name} computes something else inside torch.no_grad(): attacks follow the one and are judged by the"
            " other, so no accuracy would mean anything; make both the same"
        )
    if _backward_depends_on_batch(network, probe):
        raise UserError(
            f"{probe.name} has another backward pass in large batches than in batches of {_FEW}: a check of a few"
            " images says nothing of it then; make both the same"
        )
    return answers


def check_answers(network: nn.Module, probe: Probe, answers: Answers, when: str) -> None:
    """Raises UserError if a network no longer answers as at first; `when` says at which call, for the message."""
    for images, known in ((probe.moved, answers.at_moved), (probe.clean, answers.at_clean)):
        if not _same(known, _logits(network, probe, images)):
            raise _remembers(probe, when)


def _remembers(probe: Probe, when: str) -> UserError:
    return UserError(
        f"{probe.name} gives other outputs at {when}, although all global seeds are fixed: they depend on what it has"
        " seen before; reset its state in forward, and draw random numbers from torch's global generator"
    )


def _backward_depends_on_batch(network: nn.Module, probe: Probe) -> bool:
    """Returns whether outputs are the same in small batches, and their gradients are not."""
    try:
        at_once, few = (_gradients(network, probe, size) for size in (len(probe.images), _FEW))
    except Exception:  # whatever a backward pass raises; `check_gradient` says what it is worth
        return False
    gap = float((at_once[1] - few[1]).norm())
    return _same(at_once[0], few[0]) and gap > _SAME_GRADIENT * float(at_once[1].norm())


def _gradients(network: nn.Module, probe: Probe, size: int) -> tuple[Tensor, Tensor]:
    """Returns the logits (N, K) of batches of a size, and the gradient (N, C, H, W) of a random projection of them."""
    x = probe.images.clone().requires_grad_()
    with frozen(network), torch.enable_grad():
        logits = torch.cat([network(part) for part in x.split(size)])
        number = Projection(logits.detach(), randomness.generator("steadiness", "projection", probe.seed))
        (gradient,) = torch.autograd.grad(number.value(logits), x)
    return logits.detach(), gradient


def _logits(network: nn.Module, probe: Probe, images: Tensor) -> Tensor:
    with frozen(network), randomness.global_seed("steadiness", probe.seed), torch.no_grad():
        return called(network, images, probe.name)


def _graph_logits(network: nn.Module, probe: Probe, images: Tensor) -> Tensor:
    with frozen(network), randomness.global_seed("steadiness", probe.seed), torch.enable_grad():
        return called(network, images.clone().requires_grad_(), probe.name)


def called(network: nn.Module, images: Tensor, name: str) -> Tensor:
    """Returns the logits (N, K) of a batch. Raises UserError, with the network's name, if the network fails at it."""
    try:
        logits: Tensor = network(images)
    except Exception as error:  # whatever somebody's model raises
        problem = f"{name} fails at a batch of {len(images)} images, not at two ({one_line(error)[:200]})"
        advice = "if it keeps a state between calls, reset it in forward; if memory ran out, lower batch_size"
        raise UserError(f"{problem}: {advice}") from error
    return logits.detach().clone()


def _same(first: Tensor, second: Tensor) -> bool:
    """Returns whether two outputs are equal but for rounding; what is not finite is refused elsewhere."""
    gap = float((first.double() - second.double()).norm())
    return not gap > _ROUNDING * float(first.double().norm())
