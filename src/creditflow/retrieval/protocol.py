"""Division of a dataset for retrieval: images to train on, queries, and the database that they are searched in."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.labels import holds
from creditflow.data.prepared import Subset, load_prepared
from creditflow.data.settings import InputSettings
from creditflow.retrieval.settings import Protocol

Part = Literal["train", "query", "database"]


def load_retrieval(
    path: Path, protocol: Protocol, classes: Sequence[int] | None, inputs: InputSettings
) -> dict[Part, Subset]:
    """Returns the three parts of a prepared dataset. The database is in a random order, because its order decides ties.

    Raises UserError as `load_prepared` does, if there are too few images, if a query is in the database, or if the
    dataset has no database split, which lists need.
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
            f"{path}: no image is left for the database;"
            " draw fewer queries or training images, or set train_in_database"
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
            f"{path}: {missing} training images are not in the database;"
            " set train_in_database: false, or get the right lists"
        )
    order = torch.randperm(len(trained), generator=randomness.generator("retrieval protocol"))
    kept = order if protocol.train_in_database else order[~trained[order]]
    _check_some(kept, path)
    return {"train": train, "query": query, "database": _part(database, kept)}


def check_apart(queries: Sequence[str], others: Sequence[str], what: str, path: Path) -> None:
    """Raises UserError if a query is among other images: it would find itself, or the network would have seen it."""
    if both := sorted(set(queries) & set(others)):
        raise UserError(f"{path}: {len(both)} queries are in the {what}, for example {both[0]}; get the right lists")


def _joined(first: Subset, second: Subset) -> Subset:
    labels = torch.cat([first.labels, second.labels])
    if isinstance(first.images, ImageFiles) and isinstance(second.images, ImageFiles):
        files = ImageFiles(first.images.folder, [*first.images.names, *second.images.names])
        return dataclasses.replace(first, images=files, labels=labels)
    assert isinstance(first.images, Tensor) and isinstance(second.images, Tensor)
    return dataclasses.replace(first, images=torch.cat([first.images, second.images]), labels=labels)


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
    """Returns the first n candidates, of each class where the protocol says so; no image is drawn twice."""
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
                f"{path}: {n} {what} per class to draw, but class {name!r} has {len(of_class)} images for it;"
                " draw fewer"
            )
        drawn = torch.cat([drawn, of_class[:n]])
    return drawn
