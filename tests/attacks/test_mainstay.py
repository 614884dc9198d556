"""The mainstay code against a loop over its definition, and attacks that lead away from it."""

import math

import pytest
import torch
from torch import Tensor, nn

from creditflow.attacks.hash_attack import HashProblem
from creditflow.attacks.hash_judge import Queries, get_hash_attack, run_hash_attack
from creditflow.attacks.hashing.mainstay_pgd import loss, mainstay_codes
from creditflow.attacks.kinds import REQUIRED_OF_RETRIEVAL, kinds, missing
from creditflow.core import plugins
from creditflow.retrieval.codes import hash_codes
from creditflow.retrieval.storage import Encoded
from helpers import small_model, subset

BITS = 5


def problem(labels: Tensor, train_labels: Tensor, seed: int = 0) -> HashProblem:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, BITS)).eval()
    images = torch.rand(len(labels), 1, 3, 3, generator=generator)
    codes = (torch.randint(0, 2, (len(train_labels), BITS), generator=generator) * 2 - 1).to(torch.int8)
    return HashProblem(model, images, labels, codes, train_labels, tuple((0, index) for index in range(len(labels))))


def by_definition(given: HashProblem, query: int) -> list[float]:
    """The mainstay code of one query, image by image and bit by bit."""
    near, far = [], []
    for code, label in zip(given.train_codes.tolist(), given.train_labels, strict=True):
        mine = given.labels[query]
        if given.labels.dim() == 1:
            weight = float(mine == label)
        else:
            lengths = math.sqrt(int(mine.sum())) * math.sqrt(int(label.sum()))
            weight = float((mine.double() * label.double()).sum()) / lengths if lengths else 0.0
        (near if weight > 0 else far).append((weight or 1.0, code))
    own = given.codes[query].tolist()
    if not near:
        return own
    votes = []
    for bit in range(BITS):
        total = 0.0
        for sign, images in ((1, near), (-1, far)):
            weights = sum(weight for weight, _ in images)
            total += sign * sum(weight * code[bit] for weight, code in images) / weights if images else 0.0
        votes.append(own[bit] if abs(total) < 1e-6 else math.copysign(1.0, total))
    return votes


@pytest.mark.parametrize("seed", range(4))
def test_the_mainstay_code_is_its_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    single = problem(torch.tensor([0, 1, 2, 9]), torch.arange(31) % 4, seed)  # no training image has label 9
    several = problem(
        torch.randint(0, 2, (6, 5), generator=generator, dtype=torch.uint8),
        torch.randint(0, 2, (31, 5), generator=generator, dtype=torch.uint8),
        seed,
    )
    for given in (single, several):
        for query, code in enumerate(mainstay_codes(given).tolist()):
            assert code == by_definition(given, query)


def test_the_loss_leaves_bits_alone_that_have_flipped() -> None:
    outputs = torch.tensor([[3.0, -3.0, 0.1, -0.1]], requires_grad=True)
    value = loss(outputs, torch.ones(1, 4), torch.ones(1, 1))
    h = torch.tanh(outputs.detach())[0]
    assert value.item() == pytest.approx(sum(float(h[bit] * (h[bit] + 2)) for bit in (0, 2, 3)))
    (gradient,) = torch.autograd.grad(value.sum(), outputs)
    assert gradient[0, 1] == 0
    assert bool((gradient[0, [0, 2, 3]] > 0).all())


@pytest.mark.parametrize("name", ["mainstay_pgd", "hag_100", "sdha_100"])
def test_the_new_attacks_flip_more_bits_as_epsilon_grows(name: str) -> None:
    model, data = small_model(n_classes=8).eval(), subset(24)
    with torch.no_grad():
        codes = hash_codes(model(data.batch(torch.arange(24))[0]))
    result = run_hash_attack(
        get_hash_attack(name),
        plugins.settings_class("hash_attack", name)(iterations=20),
        model,
        Queries(data, torch.arange(24), Encoded(codes, data.labels)),
        [0.0, 0.05, 0.3],
        batch_size=9,
        seed=0,
    )
    flipped = [float((code != result.clean_codes).float().mean()) for code in result.codes]
    assert flipped[0] == 0
    assert flipped[0] <= flipped[1] < flipped[2]


def test_an_audit_of_retrieval_needs_both_kinds() -> None:
    assert kinds("mainstay_pgd", {}) == {"class_code"}
    assert {name for name in plugins.names("hash_attack") if "own_code" in kinds(name, {})} == {
        "hag",
        "hag_100",
        "hamming_pgd",
        "sdha",
        "sdha_100",
    }
    assert missing({"hag": {}, "mainstay_pgd": {}}, REQUIRED_OF_RETRIEVAL) == []
    (lacking,) = missing({"hag": {}}, REQUIRED_OF_RETRIEVAL)
    assert "code of the query's classes (mainstay_pgd)" in lacking
