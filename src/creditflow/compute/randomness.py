"""Random numbers: every purpose has a named stream of its own, and nothing draws from global state."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*names: str | int) -> int:
    """Returns a 63-bit seed that depends on all names, so that streams named differently are independent."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns the random generator that belongs to these names, for example `generator("finetune", "order", seed)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*names))


@contextmanager
def global_seed(*names: str | int) -> Iterator[None]:
    """Seeds torch's global generators for code that offers no generator argument, and restores them afterwards."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*names))
        yield
