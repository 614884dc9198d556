"""The HyP2 loss against its definition as loops, finite differences and published margins; retrieval protocols."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity

from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.dataset import ImageFiles
from creditflow.data.prepared import Subset, save_prepared
from creditflow.data.settings import InputSettings
from creditflow.retrieval.hyp2 import HyP2
from creditflow.retrieval.protocol import load_retrieval
from creditflow.retrieval.settings import HyP2Settings, Protocol, RetrievalSettings
from creditflow.retrieval.zeta import _DISTANCES, zeta


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_loops(x: Tensor, proxies: Tensor, labels: list[set[int]], margin: float, beta: float, variant: str) -> float:
    """The loss as the papers write it."""
    if variant == "h2q":
        proxies = proxies.tanh()

    def cos(a: Tensor, b: Tensor) -> float:
        return float(cosine_similarity(a[None], b[None]))

    positive = [1 - cos(x[i], proxies[c]) for i in range(len(x)) for c in range(len(proxies)) if c in labels[i]]
    negative = [
        max(0.0, cos(x[i], proxies[c]) - margin)
        for i in range(len(x))
        for c in range(len(proxies))
        if c not in labels[i]
    ]
    takes_part = [i for i in range(len(x)) if variant == "h2q" or len(labels[i]) >= 2]
    pairs = [
        max(0.0, cos(x[i], x[j]) - margin)
        for i, j in itertools.product(takes_part, takes_part)
        if not labels[i] & labels[j]
    ]
    return sum(sum(part) / max(len(part), 1) * weight for part, weight in ((positive, 1), (negative, 1), (pairs, beta)))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from(["official", "h2q"]),
    st.sampled_from([0.0, 0.5, 1.25]),
    st.sampled_from([-0.3, 0.0, 0.2]),
)
def test_the_loss_is_the_definition(seed: int, several: bool, variant: str, beta: float, margin: float) -> None:
    x = torch.randn(7, 12, generator=gen(seed), dtype=torch.float64)
    if several:
        labels = torch.randint(0, 2, (7, 5), generator=gen(seed + 1), dtype=torch.uint8)
        labels[:, 0] |= labels.sum(1) == 0
        sets = [set(row.nonzero().flatten().tolist()) for row in labels]
    else:
        labels = torch.randint(0, 5, (7,), generator=gen(seed + 1))
        sets = [{int(label)} for label in labels]
    loss = HyP2(12, 5, HyP2Settings(beta=beta, variant=variant, zeta=margin), gen(seed)).double()
    expected = by_loops(x, loss.proxies.detach(), sets, margin, beta, variant)
    assert loss(x, labels).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("variant", ["official", "h2q"])
def test_gradients_are_those_of_finite_differences(variant: str) -> None:
    labels = (torch.rand(5, 4, generator=gen(3)) < 0.5).to(torch.uint8)
    labels[:, 1] |= labels.sum(1) == 0
    loss = HyP2(12, 4, HyP2Settings(variant=variant, zeta=-0.2), gen()).double()
    x = torch.randn(5, 12, generator=gen(1), dtype=torch.float64, requires_grad=True)

    def value(x: Tensor, proxies: Tensor) -> Tensor:
        return torch.func.functional_call(loss, {"proxies": proxies}, (x, labels))

    assert torch.autograd.gradcheck(value, (x, loss.proxies.detach().clone().requires_grad_()))


def test_images_of_one_label_make_no_pairs_in_the_official_loss() -> None:
    x, labels = torch.randn(6, 12, generator=gen()), torch.arange(6) % 3
    values = {beta: float(HyP2(12, 3, HyP2Settings(beta=beta), gen())(x, labels)) for beta in (0.0, 2.0)}
    assert values[0.0] == values[2.0]
    h2q = {beta: float(HyP2(12, 3, HyP2Settings(beta=beta, variant="h2q"), gen())(x, labels)) for beta in (0.0, 2.0)}
    assert h2q[0.0] != h2q[2.0]


def test_margins_are_the_published_ones() -> None:
    assert [zeta(32, classes) for classes in (10, 21, 80, 100, 1000)] == [0, 0, 0.125, 0.125, 0.25]
    assert [round(zeta(bits, 10), 5) for bits in (12, 16, 24, 36, 48, 64)] == [0, 0, 0, 0, 0, -0.03125]
    assert [round(zeta(bits, 38), 5) for bits in (12, 16, 24, 36, 48, 64)] == [0.33333, 0.25, 0.16667, 0.11111, 0, 0]
    assert [round(zeta(bits, 80), 5) for bits in (12, 16, 24, 36, 48, 64)] == [
        0.33333,
        0.25,
        0.16667,
        0.11111,
        0.08333,
        0,
    ]
    assert [round(zeta(bits, 1000), 5) for bits in (12, 16, 24, 36, 48, 64)] == [
        0.66667,
        0.5,
        0.33333,
        0.22222,
        0.16667,
        0.125,
    ]
    assert [round(zeta(bits, 20), 5) for bits in (12, 16, 24, 36, 48, 64)] == [0.33333, 0, 0, 0.05556, 0, 0]


@pytest.mark.parametrize("bits", _DISTANCES)
def test_no_distance_is_beyond_griesmers_bound(bits: int) -> None:
    for dimension, distance in enumerate(_DISTANCES[bits], 1):
        assert sum(-(-distance // 2**i) for i in range(dimension)) <= bits  # Griesmer, 1960
    assert list(_DISTANCES[bits]) == sorted(_DISTANCES[bits], reverse=True)


def test_proxies_begin_with_variance_two_over_classes() -> None:
    proxies = HyP2(64, 500, HyP2Settings(), gen()).proxies
    assert float(proxies.detach().std()) == pytest.approx(np.sqrt(2 / 500), rel=0.02)


def test_what_the_loss_cannot_do_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="at least two classes, not 1"):
        HyP2(32, 1, HyP2Settings(), gen())
    with pytest.raises(UserError, match="codes of 33 bits"):
        HyP2(33, 10, HyP2Settings(), gen())
    with pytest.raises(UserError, match="2000 classes"):
        zeta(32, 2000)
    assert HyP2(33, 10, HyP2Settings(zeta=0.1), gen()).zeta == 0.1
    with pytest.raises(UserError, match="no image of this batch has a label"):
        HyP2(12, 3, HyP2Settings(), gen())(torch.randn(2, 12), torch.zeros(2, 3, dtype=torch.uint8))
    for wrong, message in (
        ({"beta": -1.0}, "beta must be at least 0, not -1.0"),
        ({"beta": float("inf")}, "beta must be a finite number, not inf"),
        ({"variant": "mine"}, "variant must be 'official' or 'h2q', not 'mine'"),
        ({"zeta": 1.0}, "zeta must be below 1, not 1.0"),
        ({"zeta": -1.1}, "zeta must be at least -1, not -1.1"),
    ):
        with pytest.raises(UserError, match=f"^loss: {message}$"):
            parse(HyP2Settings, wrong, "loss")


def prepared(folder: Path, *, several: bool = False) -> Path:
    """40 + 20 images whose pixels are their numbers, four classes."""
    path = folder / "prepared.safetensors"

    def split(start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.arange(start, start + n)
        images = np.broadcast_to(numbers[:, None, None, None], (n, 1, 2, 2)).astype(np.uint8)
        if several:
            labels = np.eye(4, dtype=np.uint8)[numbers % 4] | np.eye(4, dtype=np.uint8)[numbers % 3]
            return images, labels
        return images, numbers % 4

    save_prepared(path, {"train": split(0, 40), "test": split(40, 20)}, list("abcd"))
    return path


def numbers(part: Subset) -> list[int]:
    assert isinstance(part.images, Tensor)
    return part.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("trained_too", [False, True])
@pytest.mark.parametrize("kind", ["per_class", "random"])
def test_parts_are_drawn_as_the_protocol_says(tmp_path: Path, kind: str, trained_too: bool, several: bool) -> None:
    path = prepared(tmp_path, several=several)
    protocol = Protocol(kind=kind, query=2, train=3, train_in_database=trained_too)
    parts = load_retrieval(path, protocol, None, InputSettings())
    query, train, database = (set(numbers(parts[part])) for part in ("query", "train", "database"))
    each = 4 if kind == "per_class" else 1
    assert (len(query), len(train)) == (2 * each, 3 * each)
    assert not query & train and not query & database
    assert database == set(range(60)) - query - (set() if trained_too else train)
    if kind == "per_class" and not several:
        assert parts["query"].labels.bincount().tolist() == [2] * 4
        assert parts["train"].labels.bincount().tolist() == [3] * 4
    assert numbers(parts["database"]) != sorted(database)  # shuffled, as its order decides between ties
    again = load_retrieval(path, protocol, None, InputSettings())
    assert [numbers(parts[part]) for part in parts] == [numbers(again[part]) for part in again]


def test_queries_may_come_from_the_test_split_alone(tmp_path: Path) -> None:
    parts = load_retrieval(
        prepared(tmp_path), Protocol(kind="per_class", query=5, train=3, query_from="test"), [1, 2], InputSettings()
    )
    assert sorted(numbers(parts["query"])) == [number for number in range(40, 60) if number % 4 in (1, 2)]
    assert parts["database"].class_names == ("b", "c")


def test_lists_need_a_database_split_and_keep_queries_out_of_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'database' split"):
        load_retrieval(prepared(tmp_path), Protocol(kind="lists"), None, InputSettings())
    folder = tmp_path / "images"
    folder.mkdir()
    from PIL import Image

    for index in range(8):
        Image.new("RGB", (8, 8), (index * 20, 0, 0)).save(folder / f"{index}.png")

    def files(*chosen: int) -> tuple[ImageFiles, np.ndarray]:
        return ImageFiles(folder, [f"{index}.png" for index in chosen]), np.array([index % 2 for index in chosen])

    path = tmp_path / "listed.safetensors"
    save_prepared(
        path, {"train": files(0, 1), "test": files(2, 3), "database": files(0, 1, 4, 5, 6, 7)}, ["even", "odd"]
    )
    for trained_too, expected in ((True, "014567"), (False, "4567")):
        parts = load_retrieval(path, Protocol(kind="lists", train_in_database=trained_too), None, InputSettings(size=8))
        found = parts["database"].images
        assert isinstance(found, ImageFiles)
        assert sorted(found.names) == [f"{digit}.png" for digit in expected]
        assert [int(name[0]) % 2 for name in found.names] == parts["database"].labels.tolist()
    save_prepared(path, {"train": files(0, 1), "test": files(2, 3), "database": files(3, 4)}, ["even", "odd"])
    with pytest.raises(UserError, match=r"1 queries are in the database, for example 3\.png"):
        load_retrieval(path, Protocol(kind="lists"), None, InputSettings(size=8))
    save_prepared(path, {"train": files(0, 1), "test": files(2, 3), "database": files(0, 4)}, ["even", "odd"])
    with pytest.raises(UserError, match="1 training images are not in the database"):
        load_retrieval(path, Protocol(kind="lists", train_in_database=True), None, InputSettings(size=8))
    save_prepared(path, {"train": files(0, 1), "test": files(2, 3), "database": files(0, 1)}, ["even", "odd"])
    with pytest.raises(UserError, match="no image is left for the database"):
        load_retrieval(path, Protocol(kind="lists"), None, InputSettings(size=8))
    save_prepared(path, {"train": files(0, 3), "test": files(2, 3), "database": files(0, 1)}, ["even", "odd"])
    with pytest.raises(UserError, match=r"1 queries are in the training images, for example 3\.png"):
        load_retrieval(path, Protocol(kind="lists"), None, InputSettings(size=8))


def test_a_protocol_that_asks_for_too_much_is_refused(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    for protocol, message in (
        (Protocol(kind="per_class", query=16, train=1), "16 queries per class to draw, but class 'a' has 15"),
        (Protocol(kind="per_class", query=10, train=6), "6 training images per class to draw, but class 'a' has 5"),
        (Protocol(kind="random", query=61, train=1), "61 queries to draw, but there are 60"),
        (Protocol(kind="random", query=20, train=40), "no image is left for the database"),
        (Protocol(kind="per_class", query=6, train=1, query_from="test"), "class 'a' has 5"),
    ):
        with pytest.raises(UserError, match=message):
            load_retrieval(path, protocol, None, InputSettings())
    both = {"query": 1, "train": 1}
    for wrong, refused in (
        ({"kind": "mine", **both}, "kind must be 'per_class', 'random' or 'lists', not 'mine'"),
        (both, "kind is missing"),
        ({"kind": "lists", "query": 1}, "lists draw nothing; take query away"),
        ({"kind": "lists", "query_from": "test"}, "lists draw nothing; take query_from away"),
        ({"kind": "random", "train": 1}, "say how many images to draw: query and train"),
        ({"kind": "per_class", "query": 0, "train": 1}, "query must be at least 1, not 0"),
        ({"kind": "per_class", "query_from": "train", **both}, "query_from must be 'pool' or 'test', not 'train'"),
    ):
        with pytest.raises(UserError, match=f"^protocol: {refused}$"):
            parse(Protocol, wrong, "protocol")


def test_retrieval_is_told_in_one_object() -> None:
    values = {"bits": 32, "top": 5, "loss": {"beta": 0.25}, "protocol": {"kind": "lists"}}
    settings = parse(RetrievalSettings, values, "mine")
    assert (settings.bits, settings.top, settings.proxy_learning_rate) == (32, 5, None)
    assert (settings.protocol.kind, settings.loss.beta, settings.loss.variant) == ("lists", 0.25, "official")
    for wrong, message in (
        ({"loss": {"bta": 1}}, "loss: unknown key 'bta'; did you mean 'beta'?"),
        ({"protocol": {"kind": "lists", "train": 1}}, "protocol: lists draw nothing; take train away"),
        ({"bits": 20}, "bits: no margin is known for codes of 20 bits"),
        ({"bits": 0}, "bits must be at least 1, not 0"),
        ({"top": 0}, "top must be at least 1, not 0"),
        ({"proxy_learning_rate": 0}, "proxy_learning_rate must be above 0, not 0"),
    ):
        with pytest.raises(UserError, match=f"^mine: {re.escape(message)}"):
            parse(RetrievalSettings, values | wrong, "mine")
    assert parse(RetrievalSettings, values | {"bits": 20, "loss": {"zeta": 0.1}}, "mine").bits == 20
