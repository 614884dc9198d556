"""Who is searched for in what: images to train on, queries, and the database."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.inputs import InputSettings
from creditflow.data.labels import holds
from creditflow.data.prepared import Subset, load_prepared

Part = Literal["train", "query", "database"]

_KINDS = ("per_class", "random", "lists")
_SOURCES = ("pool", "test")


@dataclass(frozen=True)
class Protocol:
    """How a dataset is divided; the draw is the same for all models, so that results pair.

    Attributes:
        kind: "per_class" draws so many images of each class, "random" so many of all, and "lists" takes the dataset's own train,
            test and database splits.
        query, train: number of images, per class or in all; none for lists.
        query_from: "pool" for all images, "test" for the test split alone, which no pretraining has seen.
        train_in_database: whether training images are in the database; queries never are.
    """

    kind: str = "per_class"
    query: int | None = None
    train: int | None = None
    query_from: str = "pool"
    train_in_database: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _KINDS or self.query_from not in _SOURCES:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, query_from one of {', '.join(_SOURCES)}")
        counts = (self.query, self.train)
        if self.kind == "lists" and (counts != (None, None) or self.query_from != "pool"):
            raise ValueError("query, train and query_from say what to draw; lists draw nothing")
        if self.kind != "lists" and not all(count is not None and count >= 1 for count in counts):
            raise ValueError(f"query and train must be at least 1, not {self.query} and {self.train}")


def load_retrieval(
    path: Path, protocol: Protocol, classes: Sequence[int] | None, inputs: InputSettings
) -> dict[Part, Subset]:
    """Returns the three parts of a prepared dataset; the database is in a drawn order, as the order decides between ties.

    Raises UserError as `load_prepared` does, if there are too few images, if a query is in the database, or if the dataset has no
    database split, which lists need.
    """
    if protocol.kind == "lists":
        return _listed(path, protocol, classes, inputs)
    train, test = (load_prepared(path, split, classes, inputs) for split in ("train", "test"))
    pool = _joined(train, test)
    order = torch.randperm(len(pool.labels), generator=randomness.generator("retrieval protocol"))
    candidates = order if protocol.query_from == "pool" else order[order >= len(train.labels)]
    query = _draw(pool, candidates, protocol, protocol.query, "queries", path)
    rest = _without(order, query)
    chosen = _draw(pool, rest, protocol, protocol.train, "training images", path)
    database = rest if protocol.train_in_database else _without(rest, chosen)
    _check_some(database, path)
    return {"train": _part(pool, chosen), "query": _part(pool, query), "database": _part(pool, database)}


def _check_some(database: Tensor, path: Path) -> None:
    if len(database) == 0:
        raise UserError(
            f"{path}: no image is left for the database; draw fewer queries or training images, or set train_in_database"
        )


def _listed(path: Path, protocol: Protocol, classes: Sequence[int] | None, inputs: InputSettings) -> dict[Part, Subset]:
    train, query, database = (load_prepared(path, split, classes, inputs) for split in ("train", "test", "database"))
    names = [part.images.names for part in (train, query, database) if isinstance(part.images, ImageFiles)]
    if len(names) != 3:
        raise UserError(
            f"{path}: its images have no names by which lists could be compared; use another kind of protocol"
        )
    check_apart(names[1], names[0], "training images", path)
    check_apart(names[1], names[2], "database", path)
    of_training = set(names[0])
    trained = torch.tensor([name in of_training for name in names[2]])
    if protocol.train_in_database and int(trained.sum()) != len(names[0]):
        missing = len(names[0]) - int(trained.sum())
        raise UserError(
            f"{path}: {missing} training images are not in the database; set train_in_database: false, or get the right lists"
        )
    order = torch.randperm(len(trained), generator=randomness.generator("retrieval protocol"))
    kept = order if protocol.train_in_database else order[~trained[order]]
    _check_some(kept, path)
    return {"train": train, "query": query, "database": _part(database, kept)}


def check_apart(queries: Sequence[str], others: Sequence[str], what: str, path: Path) -> None:
    """Raises UserError if a query is among others: it would find itself, or have been trained on."""
    if both := sorted(set(queries) & set(others)):
        raise UserError(f"{path}: {len(both)} queries are in the {what}, for example {both[0]}; get the right lists")


def _joined(one: Subset, other: Subset) -> Subset:
    labels = torch.cat([one.labels, other.labels])
    if isinstance(one.images, ImageFiles) and isinstance(other.images, ImageFiles):
        return dataclasses.replace(
            one, images=ImageFiles(one.images.folder, [*one.images.names, *other.images.names]), labels=labels
        )
    assert isinstance(one.images, Tensor) and isinstance(other.images, Tensor)
    return dataclasses.replace(one, images=torch.cat([one.images, other.images]), labels=labels)


def _part(whole: Subset, chosen: Tensor) -> Subset:
    images = whole.images
    if isinstance(images, ImageFiles):
        images = ImageFiles(images.folder, [images.names[index] for index in chosen.tolist()])
    else:
        images = images[chosen]
    return dataclasses.replace(whole, images=images, labels=whole.labels[chosen])


def _without(order: Tensor, taken: Tensor) -> Tensor:
    return order[~torch.isin(order, taken)]


def _draw(pool: Subset, candidates: Tensor, protocol: Protocol, n: int | None, what: str, path: Path) -> Tensor:
    """Returns the first n candidates, of each class where the protocol goes by class; an image of several is drawn once."""
    assert n is not None
    if protocol.kind == "random":
        if len(candidates) < n:
            raise UserError(f"{path}: {n} {what} to draw, but there are {len(candidates)} images for it; draw fewer")
        return candidates[:n]
    drawn = candidates[:0]
    for index, name in enumerate(pool.class_names):
        left = _without(candidates, drawn)
        of_class = left[holds(torch.full((len(left),), index), pool.labels[left])]
        if len(of_class) < n:
            raise UserError(
                f"{path}: {n} {what} per class to draw, but class {name!r} has {len(of_class)} images for it; draw fewer"
            )
        drawn = torch.cat([drawn, of_class[:n]])
    return drawn
