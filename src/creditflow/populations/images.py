"""Images of a split as vectors on the device, and the order in which each member sees them."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.data.prepared import Subset


@dataclass(frozen=True)
class FlatImages:
    """Images and labels on the device.

    Attributes:
        pixels: uint8 (N, n_0).
        labels: int64 (N,); for images with several labels uint8 zeros and ones (N, C).
        n_classes: C.
        mean, deviation: networks see (pixel - mean) / deviation, where pixels are in [0, 1].
        shape: (C, H, W) of an image, where it matters.
    """

    pixels: Tensor
    labels: Tensor
    n_classes: int
    mean: float = 0.0
    deviation: float = 1.0
    shape: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns images (..., n_0) and targets (..., C) for indices (...).

        Targets are one-hot labels. An image with k labels has a target of 1 / k at each of them.
        """
        flat = chosen.reshape(-1)
        images, labels = self.pixels.index_select(0, flat).to(dtype).div_(255), self.labels.index_select(0, flat)
        if (self.mean, self.deviation) != (0.0, 1.0):
            images = images.sub_(self.mean).div_(self.deviation)
        if labels.dim() == 2:
            targets = labels.to(dtype) / labels.sum(1, keepdim=True)
        else:
            targets = torch.zeros(len(flat), self.n_classes, dtype=dtype, device=images.device).scatter_(
                1, labels[:, None], 1
            )
        return images.view(*chosen.shape, -1), targets.view(*chosen.shape, -1)

    def part(self, chosen: Tensor) -> "FlatImages":
        """Returns the images at these indices."""
        return replace(self, pixels=self.pixels[chosen], labels=self.labels[chosen])


def flat_images(data: Subset) -> FlatImages:
    """Returns a subset's images as vectors.

    Raises UserError for images that are stored as files or resized, and for an image without any label.
    """
    if not isinstance(data.images, Tensor) or data.inputs.size is not None:
        raise UserError(
            "populations take small images at their stored size; take `input.size` away or choose another dataset"
        )
    if data.multi_label and not bool(data.labels.any(1).all()):
        raise UserError(
            "an image has no label at all, so that there is nothing to learn from it;"
            " give such images a label of their own"
        )
    pixels = data.images
    channels = data.inputs.channels
    if channels is not None and channels != pixels.shape[1]:
        pixels = pixels.expand(-1, channels, -1, -1)
    shape = pixels.shape[1], pixels.shape[2], pixels.shape[3]
    return FlatImages(pixels.flatten(1).to(data.device), data.labels, len(data.class_names), shape=shape)


def held_out(data: FlatImages, n: int) -> tuple[FlatImages, FlatImages]:
    """Returns the images to train on and n images that are held out, the same ones for every seed and rule.

    Raises UserError if no image is left to train on.
    """
    if n >= len(data):
        raise UserError(f"{n} validation images of {len(data)} leave none to train on; lower validation_images")
    order = torch.randperm(len(data), generator=randomness.generator("validation images")).to(data.labels.device)
    return data.part(order[n:].sort().values), data.part(order[:n].sort().values)


class Streams:
    """The random numbers of training. Each seed has its own generators, so that members of one seed see the same images
    and masks.

    Every purpose has a stream of its own. What one rule or setting draws in addition changes nothing for the others.
    """

    #: The stream `noise` gives dropout masks, too. Orders are drawn on the CPU, all other numbers on the device.
    ORDERS, NOISES = ("order", "feedback order"), ("noise", "feedback noise", "measuring")

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        self.seeds = sorted(set(seeds))
        self._row = torch.tensor([self.seeds.index(seed) for seed in seeds], device=device)
        self._all_differ = len(self.seeds) == len(seeds) and self.seeds == seeds
        self._generators = {
            name: [randomness.generator("population", name, seed) for seed in self.seeds] for name in self.ORDERS
        }
        self._generators |= {
            name: [randomness.generator("population", name, seed, device=device) for seed in self.seeds]
            for name in self.NOISES
        }
        self.device = device

    def orders(self, n: int, stream: str = "order") -> Tensor:
        """Returns for each member a permutation (P, n) of the training images."""
        return self._spread(
            torch.stack([torch.randperm(n, generator=generator) for generator in self._generators[stream]]).to(
                self.device
            )
        )

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype, stream: str = "noise") -> Tensor:
        """Returns for each member numbers (P, *shape) in [0, 1)."""
        drawn = torch.empty(len(self.seeds), *shape, dtype=dtype, device=self.device)
        for row, generator in zip(drawn, self._generators[stream], strict=True):
            row.uniform_(generator=generator)
        return self._spread(drawn)

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype, stream: str = "noise") -> Tensor:
        """Returns for each member numbers (P, *shape) from N(0, 1)."""
        drawn = torch.empty(len(self.seeds), *shape, dtype=dtype, device=self.device)
        for row, generator in zip(drawn, self._generators[stream], strict=True):
            row.normal_(generator=generator)
        return self._spread(drawn)

    def masks(self, shape: tuple[int, ...], keep: float, dtype: torch.dtype) -> Tensor:
        """Returns for each member a dropout mask (P, *shape): 1 / keep with probability keep (to 16 bits), else 0."""
        n = math.prod(shape)
        words = torch.empty(len(self.seeds), -(-n // 4), dtype=torch.int64, device=self.device)
        for row, generator in zip(words, self._generators["noise"], strict=True):
            row.random_(-(2**63), None, generator=generator)
        kept = words.view(torch.int16)[:, :n].reshape(-1, *shape) < round(keep * 2**16) - 2**15
        return self._spread(kept.to(dtype).mul_(1 / keep))

    def _spread(self, rows: Tensor) -> Tensor:
        """Returns a row for each member, from rows for each seed."""
        return rows if self._all_differ else rows[self._row]

    def get_state(self) -> list[Tensor]:
        """Returns the generators' states, for a checkpoint."""
        return [generator.get_state() for generators in self._generators.values() for generator in generators]

    def set_state(self, states: list[Tensor]) -> None:
        """Sets what `get_state` returned."""
        generators = [generator for generators in self._generators.values() for generator in generators]
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def is_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns for logits and targets (..., B, C) whether (..., B) the largest logit belongs to a label of the image."""
    return targets.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1) > 0
