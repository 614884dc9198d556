"""Random numbers: every purpose has a stream with its own name, and nothing draws from the global state of torch."""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch


def derive_seed(*names: str | int) -> int:
    """Returns a 63-bit seed that depends on all names, so that streams of different names are independent."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns the random generator that belongs to these names, such as `generator("finetune", "order", seed)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*names))


@contextmanager
def global_seed(*names: str | int) -> Iterator[None]:
    """Seeds the global generators of torch, for code that takes no generator, and restores them afterwards."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*names))
        yield


@dataclass(frozen=True)
class Streams:
    """The random streams of one job. Each purpose has a stream, which follows from the name of the job and the seed.

    For example, `Streams("finetune", 3).generator("order")` is `generator("finetune", "order", 3)`.
    """

    name: str
    seed: int

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Returns the generator of a purpose."""
        return generator(self.name, purpose, self.seed, device=device)

    def global_seed(self, purpose: str, *names: str | int) -> AbstractContextManager[None]:
        """Seeds the global generators of torch for a purpose, as the function of this name does."""
        return global_seed(self.name, purpose, self.seed, *names)
