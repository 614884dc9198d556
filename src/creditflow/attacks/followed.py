"""Whether the gradients that an attack follows are what they seem, checked while the attack runs.

`check_gradient` looks at some images before an attack. A model can be honest there, and lie at other images or at those
that an attack has already moved. It can also have a gradient that is a true derivative and leads nowhere. So some of
the gradients that attacks ask for are compared with what the outputs do, at the place and for the loss that the attack
itself has chosen.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Norm
from creditflow.attacks.foreign import Beside
from creditflow.attacks.guards import QueryWatch
from creditflow.attacks.slopes import Followed, judged
from creditflow.derivatives.subject import kept_randomness

#: Numbers of the gradients that are judged, in each run of an attack. The first one of all is judged, too.
_JUDGED = frozenset(3 * 4**power for power in range(16))


@dataclass
class _Call:
    """One call of the model: images, outputs, and the gradient (N, K) at the outputs.

    `place` is the run of the attack in its batch, and the number of the gradient in this run.
    """

    place: tuple[int, int]
    images: Tensor
    outputs: Tensor | None = None
    at_outputs: Tensor | None = None
    judged: bool = False

    def keep_at_outputs(self, gradient: Tensor) -> None:
        """Keeps the gradient at the outputs, until one at the images has followed from it."""
        if not self.judged:
            self.at_outputs = gradient.detach().clone()


@dataclass
class FollowedGradients:
    """Judges some gradients of each batch: the first, and the 3rd, 12th, 48th ... of each run and each epsilon.

    Let g be the gradient at images x, which came from a gradient v at the outputs f(x), and let u be a random
    direction. The gradient is confirmed if g u is v (f(x + h u) - f(x - h u)) / 2h for one of the steps h, and if f(x)
    is the same without a graph. What float32 or fewer digits cannot confirm, the model in float64 may. The gradient
    misleads if a step of an eighth or a third of epsilon along it gives less v f than a step against it.

    Attributes:
        counter: counts the attack's queries, to which these calls do not belong.
        norm: the attack's norm.
        epsilon: the largest size of the perturbation.
        unconfirmed: number of images whose gradient was not confirmed, by run and number of the gradient.
        misleading: number of images whose gradient misleads, likewise.
    """

    counter: QueryWatch
    norm: Norm
    epsilon: float
    unconfirmed: dict[tuple[int, int], int] = field(default_factory=dict)
    misleading: dict[tuple[int, int], int] = field(default_factory=dict)
    _n_runs: int = 0
    _n_calls: int = 0
    _open: _Call | None = None
    _busy: bool = False

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Judges gradients of a model in a block that attacks one batch."""
        watched = model.model if isinstance(model, Beside) else model
        before = watched.register_forward_pre_hook(self._before)
        after = watched.register_forward_hook(self._after)
        self._n_runs, self._n_calls, self._open = 0, 0, None
        try:
            yield
        finally:
            self._open = None
            before.remove()
            after.remove()

    def begin(self) -> None:
        """Says that a run of the attack begins: at another epsilon, or another stage of a cascade."""
        self._n_runs, self._n_calls = self._n_runs + 1, 0

    def shares(self, n_images: int) -> dict[str, float]:
        """Returns the largest shares of the attacked images, over all places, by their names in a record."""
        counts = {"unconfirmed_gradients": self.unconfirmed, "misleading_gradients": self.misleading}
        return {name: max(by_place.values(), default=0) / n_images for name, by_place in counts.items()}

    def _before(self, model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        images = inputs[0]
        if self._busy or not (torch.is_grad_enabled() and images.requires_grad):
            return None
        self._n_calls += 1
        if self._n_calls not in _JUDGED and not (self._n_calls == 1 and self._n_runs <= 1):
            return None
        call = self._open = _Call((self._n_runs, self._n_calls), images.detach().clone())
        # An attack may show the same images to several models. The gradient of the copy is that of this call alone.
        copy = images.clone()
        copy.register_hook(lambda gradient: self._judge(model, call, gradient.detach()))
        return (copy, *inputs[1:])

    def _after(self, model: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> None:
        call = self._open
        if not self._busy and call is not None and call.images.shape == inputs[0].shape and outputs.requires_grad:
            call.outputs = outputs.detach().clone()
            outputs.register_hook(call.keep_at_outputs)
            self._open = None

    def _judge(self, model: nn.Module, call: _Call, gradient: Tensor) -> None:
        """Judges the first gradient (N, C, H, W) at the images that follows from one at the outputs."""
        if call.judged or call.outputs is None or call.at_outputs is None:
            return
        call.judged = self._busy = True
        n_queries = self.counter.n_images
        followed = Followed(call.images, call.outputs, call.at_outputs, gradient)
        try:
            with torch.no_grad(), kept_randomness(), _all_digits():
                confirmed, misled = judged(model, followed, self.norm, self.epsilon)
        finally:
            self._busy, self.counter.n_images = False, n_queries
        for counts, found in ((self.unconfirmed, ~confirmed), (self.misleading, misled)):
            counts[call.place] = counts.get(call.place, 0) + int(found.sum())


@contextmanager
def _all_digits() -> Iterator[None]:
    """Lets an NVIDIA GPU multiply float32 with all digits in a block, where PyTorch's settings are the usual ones."""
    places: Sequence[Any] = (torch.backends.cuda.matmul, torch.backends.cudnn) if torch.cuda.is_initialized() else ()
    before = []
    for place in places:
        with suppress(RuntimeError):  # of a user who has set `fp32_precision`, which these settings cannot express
            before.append((place, place.allow_tf32))
            place.allow_tf32 = False
    try:
        yield
    finally:
        for place, value in before:
            place.allow_tf32 = value
