"""Signs that the number of an attack means less than it seems to (Carlini et al., 2019; Croce et al., 2020)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Problem
from creditflow.core.errors import UserError
from creditflow.data.labels import logits_ratio


def check_outputs(logits: Tensor) -> None:
    """Raises UserError for outputs that no attack can work on: not finite, or probabilities instead of logits."""
    check_finite(logits)
    sums = logits.double().sum(1)
    if float(logits.min()) >= 0 and bool(((sums - 1).abs() < 1e-4).all()):
        raise UserError("the model seems to output probabilities, but attacks need logits: remove its softmax")


def check_finite(outputs: Tensor) -> None:
    """Raises UserError for outputs at clean images that are not finite."""
    if not bool(outputs.isfinite().all()):
        raise UserError("the model's outputs are not finite (NaN or infinite): its weights are broken, train it again")


class QueryWatch:
    """Counts the images that a model is shown, and checks its outputs while an attack works on it or is judged.

    The largest of several NaN is the first one, so that class 0 would seem to survive, and a hash code of NaN would
    seem to be all -1. So the first output that is not finite ends the job.

    Attributes:
        attack: id of the attack, for messages.
        n_images: number of images so far.
    """

    def __init__(self, attack: str) -> None:
        self.attack = attack
        self.n_images = 0
        self._where: str | None = None

    @contextmanager
    def watching(self, *epsilons: float) -> Iterator[None]:
        """Checks outputs in a block that works at these epsilons."""
        self._where = f"epsilon {epsilons[0]:g}" if len(epsilons) == 1 else f"one of the epsilons {_listed(epsilons)}"
        try:
            yield
        finally:
            self._where = None

    def hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """For `register_forward_hook` of the model. Raises UserError for broken outputs."""
        self.n_images += len(output)
        self._check(inputs, output, "the model's")

    def surrogate_hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """For `register_forward_hook` of a surrogate, whose queries are not counted. Raises UserError likewise."""
        self._check(inputs, output, "the surrogate's")

    def _check(self, inputs: tuple[Tensor, ...], output: Tensor, whose: str) -> None:
        if self._where is None or bool(output.isfinite().all()):
            return
        broken = ~output.isfinite().flatten(1).all(1)
        if bool(inputs[0][broken].isfinite().all()):  # else it is the attack that is broken, see `check_bounds`
            raise UserError(
                f"attack {self.attack}, {self._where}: {whose} outputs are not finite (NaN or infinite) at"
                f" {int(broken.sum())} perturbed images, which neither survive nor fail; train the model again or lower"
                " the epsilons"
            )


def _listed(epsilons: Sequence[float]) -> str:
    return ", ".join(f"{epsilon:g}" for epsilon in epsilons)


def check_images(images: Tensor) -> None:
    """Raises UserError unless images are bytes: others would not become pixels in [0, 1], as attacks expect."""
    if images.dtype != torch.uint8:
        raise UserError(f"images must be uint8 from 0 to 255, not {str(images.dtype).removeprefix('torch.')}")


def observe(problem: Problem, *, gradient: bool) -> dict[str, Tensor]:
    """Returns signs (N,) for the images of one batch; those of the loss and its gradient only if `gradient`."""
    with torch.no_grad():
        again = problem.model(problem.images)
    signs = {"outputs_differ": (again != problem.logits).any(1)}
    if gradient:
        signs |= observe_gradient(problem)
    return {name: values.cpu() for name, values in signs.items()}


def observe_gradient(problem: Problem) -> dict[str, Tensor]:
    """Returns signs (N,), on the CPU, of the loss and its gradient at the images of one batch."""
    loss, slope = problem.loss_and_gradient
    flat = slope.flatten(1)
    signs = {
        "loss_is_zero": loss == 0,
        "gradient_is_zero": (flat == 0).all(1) & ~_constant_by_definition(problem),
        "zero_pixels": (flat == 0).double().mean(1),
        "gradient_is_not_finite": ~flat.isfinite().all(1),
    }
    return {name: values.cpu() for name, values in signs.items()}


def _constant_by_definition(problem: Problem) -> Tensor:
    """Returns bool (N,): whether the loss is constant around an image by its definition.

    The difference of logits ratio is 1 wherever the label ranks third. Such an image is misclassified anyway.
    """
    if problem.loss is not logits_ratio:
        return torch.zeros(len(problem.labels), dtype=torch.bool, device=problem.labels.device)
    return problem.logits.topk(3, dim=1).indices[:, 2] == problem.labels


#: Names of the signs in the `checks` of a record. Each is a share of the images; the last one is a share of their
#: pixels.
_SHARES = {
    "outputs_differ": "randomised_outputs",
    "loss_is_zero": "saturated_loss",
    "gradient_is_zero": "zero_gradients",
    "gradient_is_not_finite": "nonfinite_gradients",
    "zero_pixels": "zero_gradient_pixels",
}


def join_signs(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the signs of all images from those of batches."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def summarise(signs: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the share of the images that show each sign."""
    return {_SHARES[name]: float(values.double().mean()) for name, values in signs.items()}
