"""The progress bar of an audit: it counts images that networks are shown, and says how much time is left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from shutil import get_terminal_size

import torch
from torch import Tensor, nn
from tqdm import tqdm

from creditflow.data.settings import Augmentation
from creditflow.data.unit_images import UnitImages
from creditflow.instrument.budgets import BACKWARD

#: Which share of its largest cost an attack is expected to have, before one of its kind has run: images that fall early
#: cost little.
_PRIOR = {"cascade": 0.3}


@dataclass(frozen=True)
class WatchedImages(UnitImages):
    """Images that say how far an attack has come: `after` is called with the share of batches that are done."""

    after: Callable[[float], None] = print

    def batches(
        self, parts: Sequence[Tensor], change: Augmentation | None = None, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches, and reports after each."""
        for number, batch in enumerate(super().batches(parts, change, generator), start=1):
            yield batch
            self.after(number / len(parts))


class Progress:
    """Estimates the work that is left from the largest cost of each job, and from what jobs of the same kind did cost.

    Costs are in forward passes of one image.
    """

    def __init__(self, shown: bool) -> None:
        """Shows an empty bar, if any."""
        self._waiting: list[tuple[str, float]] = []
        self._shares = dict(_PRIOR)
        self._done = self._in_job = 0.0
        form = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed} passed, {remaining} left"
        # A terminal that does not say how wide it is has a width of 0, for which tqdm would show nothing.
        width = get_terminal_size().columns
        self._bar = tqdm(total=1.0, disable=not shown, bar_format=form, leave=False, mininterval=0.5, ncols=width)

    def say(self, text: str) -> None:
        """Shows what is done now."""
        self._bar.set_description(text)

    def expect(self, costs: Sequence[tuple[str, float]]) -> None:
        """Takes note of the kind and the largest cost of each job to come, in their order."""
        self._waiting = list(costs)
        self._show(0.0)

    def _expected(self) -> float:
        return sum(cost * self._shares.get(kind, 1.0) for kind, cost in self._waiting)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    @contextmanager
    def job(self, text: str, networks: Sequence[nn.Module]) -> Iterator[None]:
        """Counts what networks are shown during the next job."""
        kind, cost = self._waiting.pop(0)
        self._in_job = 0.0
        self.say(text)
        with ExitStack() as stack:
            for network in networks:
                stack.callback(network.register_forward_hook(self._hook).remove)
            yield
        if self._in_job:
            self._shares[kind] = self._in_job / cost
        self._done += self._in_job
        self._in_job = 0.0
        self._show(0.0)

    def skip(self) -> None:
        """Leaves the next job out, because it is done already."""
        self._waiting.pop(0)
        self._show(0.0)

    def after_batch(self, share: float) -> None:
        """Takes note that a share of the batches of the job is done."""
        self._show(self._in_job * (1 / share - 1))

    def _hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        cost = len(inputs[0]) * (BACKWARD if torch.is_grad_enabled() and inputs[0].requires_grad else 1.0)
        self._in_job += cost
        self._bar.update(max(min(cost, (self._bar.total or 0.0) - self._bar.n), 0.0))

    def _show(self, left_of_job: float) -> None:
        done = self._done + self._in_job
        self._bar.total = max(done + left_of_job + self._expected(), done)
        self._bar.n = done
        self._bar.update(0)
