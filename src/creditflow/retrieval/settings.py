"""What an experiment says of retrieval, as one JSON object: code length, ranking, loss and protocol."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from creditflow.core.settings import parse
from creditflow.retrieval.hyp2 import HyP2Settings
from creditflow.retrieval.protocol import Protocol


@dataclass(frozen=True)
class RetrievalSettings:
    """Parameters of one retrieval task.

    Attributes:
        protocol: what `Protocol` takes.
        bits: length K of codes.
        top: k of mAP@k.
        loss: what `HyP2Settings` takes.
        proxy_learning_rate: Adam's step size of the loss's proxies; None for that of the hash layer.
    """

    protocol: dict[str, Any]
    loss: dict[str, Any]
    bits: int
    top: int
    proxy_learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.bits < 1 or self.top < 1:
            raise ValueError("bits and top must be at least 1")
        if self.proxy_learning_rate is not None and not 0 < self.proxy_learning_rate < math.inf:
            raise ValueError(f"proxy_learning_rate must be positive and finite, not {self.proxy_learning_rate}")


def parse_retrieval(values: Mapping[str, Any], where: str) -> tuple[RetrievalSettings, Protocol, HyP2Settings]:
    """Returns the settings and their two parts. Raises UserError as `parse` does."""
    settings = parse(RetrievalSettings, values, where)
    return (
        settings,
        parse(Protocol, settings.protocol, f"{where}: protocol"),
        parse(HyP2Settings, settings.loss, f"{where}: loss"),
    )
