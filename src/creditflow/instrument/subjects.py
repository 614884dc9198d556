"""The models of an audit: their names and networks, what they must be able to do, and what their gradient is worth."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.attacks.guards import check_outputs
from creditflow.compute.randomness import generator
from creditflow.core.errors import UserError, one_line, suggestion
from creditflow.derivatives.check import check_gradient
from creditflow.derivatives.evidence import Projection
from creditflow.derivatives.frozen import frozen
from creditflow.derivatives.report import GradientReport
from creditflow.derivatives.steadiness import called
from creditflow.instrument.inputs import Bounds, Inputs
from creditflow.instrument.wrapped import UnitRange, kind_of, weights_sha256

#: What a model is called if there is one without a name.
ALONE = "model"

#: The name of the model that others are compared with, where nothing else is said.
REFERENCE = "reference"

#: How the names of further models begin, from which images are transferred.
FURTHER = "surrogate "

#: How many images the check of a gradient looks at.
_CHECKED = 8

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+-]*[A-Za-z0-9+])?")


@dataclass(frozen=True)
class Subject:
    """One network of a model.

    Attributes:
        name: the model.
        seed: its position in the list of the model's networks, from 0.
        network: from images in [0, 1] to logits.
        weights: hash of its parameters and buffers.
        kind: its class.
    """

    name: str
    seed: int
    network: UnitRange
    weights: str
    kind: str

    def __str__(self) -> str:
        """Returns how messages call it."""
        return f"model {self.name!r}" + (f", network {self.seed}" if self.seed else "")


def read_models(models: Any) -> dict[str, list[nn.Module]]:
    """Returns the networks of each model by its name. Raises UserError for what is no such thing."""
    if isinstance(models, nn.Module):
        models = {ALONE: models}
    if not isinstance(models, Mapping) or not models:
        raise UserError("models must be a torch.nn.Module, or a dict such as {'mine': model, 'reference': other}")
    networks: dict[str, list[nn.Module]] = {}
    for name, value in models.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "matched":
            raise UserError(f"{name!r} can't be the name of a model: use letters, digits, and - _ . + within")
        if name.startswith(FURTHER):
            raise UserError(f"{name!r} can't be the name of a model: names that begin with {FURTHER!r} are taken")
        members = [value] if isinstance(value, nn.Module) else value
        if (
            not isinstance(members, Sequence)
            or not members
            or not all(isinstance(member, nn.Module) for member in members)
        ):
            raise UserError(f"model {name!r} must be a torch.nn.Module, or a list of them, one for each seed")
        networks[name] = list(members)
    return networks


def reference_of(networks: Mapping[str, Sequence[nn.Module]], stated: str | None) -> str:
    """Returns the name of the model that others are compared with; of a single model its own name.

    Raises UserError if nothing says which it is, or if it has fewer networks than another model.
    """
    names = list(networks)
    if stated is not None and stated not in networks:
        raise UserError(f"unknown reference {stated!r}{suggestion(stated, names)}")
    if stated is None and len(names) > 1 and REFERENCE not in networks:
        raise UserError(f"which model are the others compared with? Say reference=, one of: {', '.join(names)}")
    chosen = stated or (names[0] if len(names) == 1 else REFERENCE)
    for name, members in networks.items():
        if len(members) > len(networks[chosen]):
            problem = f"{name!r} has {len(members)} networks, the reference {chosen!r} has {len(networks[chosen])}"
            raise UserError(f"{problem}: networks are compared in pairs; give the reference as many")
    return chosen


def device_of(networks: Mapping[str, Sequence[nn.Module]], stated: Any) -> torch.device:
    """Returns the device of all networks. Raises UserError if they are not on one device, or not on the stated one."""
    try:
        wanted = None if stated is None else torch.device(stated)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device {stated!r} is not a device ({one_line(error)}); use cpu or cuda") from None
    for name, members in networks.items():
        for network in members:
            for tensor in [*network.parameters(), *network.buffers()]:
                wanted = wanted or tensor.device
                if not _same(tensor.device, wanted):
                    problem = f"model {name!r} has tensors on {tensor.device}, where {wanted} is expected"
                    advice = f"device={str(tensor.device)!r}" if stated is not None else "move the others"
                    raise UserError(f"{problem}: move it, model.to({str(wanted)!r}), or {advice}")
    return wanted or torch.device("cpu")


def _same(device: torch.device, other: torch.device) -> bool:
    return device.type == other.type and (device.index or 0) == (other.index or 0)


def check_modes(networks: Mapping[str, Sequence[nn.Module]]) -> None:
    """Raises UserError for a model in training mode whose outputs depend on the mode."""
    changing = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for name, members in networks.items():
        for network in members:
            for place, module in network.named_modules():
                if isinstance(module, changing) and module.training:
                    what = f"{type(module).__name__} {place}".strip()
                    raise UserError(
                        f"model {name!r} is in training mode, and {what} works otherwise there: call .eval()"
                    )


def as_subjects(
    networks: Mapping[str, Sequence[nn.Module]], bounds: Bounds, preprocess: Callable[[Tensor], Tensor] | None
) -> dict[str, list[Subject]]:
    """Returns the networks, wrapped for images in [0, 1], by the name of their model."""
    return {
        name: [
            Subject(name, seed, UnitRange(network, bounds, preprocess), weights_sha256(network), kind_of(network))
            for seed, network in enumerate(members)
        ]
        for name, members in networks.items()
    }


def check_first(subject: Subject, inputs: Inputs, device: torch.device) -> int:
    """Returns the number of classes, after a look at the outputs of a network at two images.

    Raises UserError if the network does not turn these images into logits.
    """
    images = inputs.images[:2].to(device)
    try:
        with frozen(subject.network), torch.no_grad():
            outputs = subject.network(images)
    except UserError:
        raise
    except Exception as error:  # whatever somebody's model raises
        shape, why = tuple(images.shape[1:]), one_line(error)[:200]
        raise UserError(
            f"{subject} fails at images of the shape {shape} ({why}); check sizes and preprocessing"
        ) from error
    if not isinstance(outputs, Tensor):
        kind = type(outputs).__name__
        raise UserError(
            f"{subject} returns a {kind}, not a tensor of logits: wrap it in a module that returns the logits"
        )
    if outputs.dim() != 2 or len(outputs) != len(images):
        shape = tuple(outputs.shape)
        raise UserError(
            f"{subject} returns the shape {shape} for {len(images)} images: logits have the shape (N, classes)"
        )
    n_classes = outputs.shape[1]
    if n_classes < 2:
        raise UserError(f"{subject} has one output: give one for each class, such as torch.cat([-z, z], 1) for two")
    if (most := int(inputs.labels.max())) >= n_classes:
        raise UserError(
            f"label {most} is out of range: {subject} has {n_classes} outputs, so labels go to {n_classes - 1}"
        )
    return n_classes


def clean_logits(subject: Subject, inputs: Inputs, device: torch.device, batch_size: int) -> Tensor:
    """Returns the logits (N, K) of all images, on the CPU.

    Raises UserError if the network fails, or if these are no logits: not finite, or probabilities.
    """
    with frozen(subject.network), torch.no_grad():
        batches = inputs.images.split(batch_size)
        logits = torch.cat([called(subject.network, part.to(device), str(subject)).cpu() for part in batches])
    try:
        check_outputs(logits)
    except UserError as error:
        raise UserError(f"{subject}: {error}") from None
    return logits


#: Verdicts on a gradient, from the best to the worst.
_ORDER = ("honest", "surrogate", "no useful gradient")


def gradient_report(members: Sequence[Subject], inputs: Inputs, device: torch.device, seed: int) -> GradientReport:
    """Returns what the gradient of a model is worth: the worst verdict on one of its networks.

    Layers are asked only where this verdict is not "honest": they take as long as the rest, and there is nobody to
    blame then.

    Raises UserError, with the model's name, as `check_gradient` does.
    """
    chosen = slice(0, _CHECKED)
    images, labels = inputs.images[chosen].to(device), inputs.labels[chosen].to(device)
    try:
        reports = [_checked(subject, images, labels, layers=False, seed=seed) for subject in members]
        worst = max(range(len(reports)), key=lambda index: _ORDER.index(reports[index].verdict))
        if reports[worst].verdict != "honest":
            reports[worst] = _checked(members[worst], images, labels, layers=True, seed=seed)
    except UserError as error:
        raise UserError(f"model {members[0].name!r}: {error}") from error
    return _without_wrapper(reports[worst])


def _checked(subject: Subject, images: Tensor, labels: Tensor, *, layers: bool, seed: int) -> GradientReport:
    """Returns the check of a network's gradient, in the mode in which attacks find it."""
    with frozen(subject.network):
        return check_gradient(subject.network, images, labels, layers=layers, seed=seed)


def check_differ(members: Sequence[Subject], logits: Sequence[Tensor]) -> None:
    """Raises UserError if two networks of a model are copies: a training counts only once.

    Args:
        members: the networks, one for each seed.
        logits: the outputs (N, K) of each at the same images.
    """
    for place, (member, outputs) in enumerate(zip(members, logits, strict=True)):
        for other in range(place):
            if member.weights == members[other].weights and torch.equal(outputs, logits[other]):
                raise UserError(
                    f"networks {other} and {place} of model {member.name!r} are copies of each other: give networks of"
                    " different trainings, as each counts as one seed"
                )


def own_gradient(subject: Subject, inputs: Inputs, device: torch.device) -> Tensor:
    """Returns what a network's backward pass gives at the first images (n, C, H, W); zero if it fails.

    It is the gradient of a random projection of the logits, which no scale of them saturates.
    """
    x = inputs.images[:_CHECKED].to(device, copy=True).requires_grad_()
    try:
        with frozen(subject.network), torch.enable_grad():
            logits = subject.network(x)
            number = Projection(logits.detach(), generator("own gradient"))
            (gradient,) = torch.autograd.grad(number.value(logits), x)
    except Exception:  # whatever somebody's backward pass raises; `check_gradient` tells the reason
        return torch.zeros_like(x)
    return gradient.detach()


def _without_wrapper(report: GradientReport) -> GradientReport:
    """Returns a report whose layers are called as in the user's model."""
    reason, layers = report.reason, []
    for layer in report.layers:
        name = layer.name.removeprefix("model.")
        reason = reason.replace(layer.name, name)
        layers.append(replace(layer, name=name))
    return replace(report, reason=reason, layers=tuple(layers))
