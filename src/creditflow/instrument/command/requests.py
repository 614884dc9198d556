"""What a command line asks for, as plain values; it imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from creditflow.core.factory import ModelSource, parse_source


@dataclass(frozen=True)
class ModelRequest:
    """A model that a command line names.

    Attributes:
        source: the text that names it.
        weights: the file of its weights; None if it needs none.
        sha256: what the SHA-256 of that file begins with; None if it is not known.
        normalisation: `mean` and `std` of its input per channel; None if it takes images as they are.
    """

    source: str
    weights: Path | None
    sha256: str | None
    normalisation: Mapping[str, Sequence[float]] | None

    @property
    def parsed(self) -> ModelSource:
        """What the text says. Raises UserError if it names no model."""
        return parse_source(self.source)

    @property
    def name(self) -> str:
        """A short name for tables and files: that of the function, of torchvision's network, or of the file."""
        return self.parsed.function or Path(self.parsed.place).stem

    def trained(self) -> Self:
        """Returns the request with published weights, if it asks for a network of torchvision and names no weights.

        They bring their normalisation.
        """
        parsed = self.parsed
        if parsed.kind != "torchvision" or self.weights is not None or parsed.n_classes is not None:
            return self
        source = self.source if parsed.weights else f"{self.source.strip()}@DEFAULT"
        return replace(self, source=source, normalisation=None)


@dataclass(frozen=True)
class ImagesRequest:
    """The images that a command line names, and how they are taken.

    Attributes:
        source: a folder of classes, an .npz file or `dataset:<name>`.
        bounds: lowest and highest value of a pixel.
        size: height and width to which image files are scaled; None leaves them as they are.
        count: the number of images.
        seed: of the draw of the images, and of all else that is random.
    """

    source: str
    bounds: tuple[float, float]
    size: int | None
    count: int
    seed: int


@dataclass(frozen=True)
class AuditSettings:
    """How an audit is made, and where its result goes; see `instrument.audit.audit`."""

    output: Path
    budget: Literal["quick", "default", "strong"]
    margin: float
    batch_size: int | None
    device: str


@dataclass(frozen=True)
class AttackRequest:
    """The attack that a command line names.

    Attributes:
        attack: its id.
        gradient: what it follows.
        settings: its settings, as an experiment has them.
        batch_size: the number of images at once; None for the usual one.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        output: the file of adversarial images; None if they are not written.
    """

    attack: str
    gradient: Literal["exact", "own"]
    settings: Mapping[str, Any]
    batch_size: int | None
    device: str
    output: Path | None
