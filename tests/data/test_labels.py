"""Images of several labels: loss, verdict, attacks; and that one label given as a vector is one label."""

import math

import pytest
import torch
from torch.nn import functional as F

from creditflow.attacks.judge import choose_images, get_attack, run_attack
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data.labels import cross_entropy, holds_for_all, is_correct, per_class
from creditflow.data.prepared import Subset
from helpers import small_model, subset


def test_a_vector_with_one_label_is_that_label() -> None:
    logits, labels = torch.randn(7, 4), torch.randint(0, 4, (7,))
    vectors = F.one_hot(labels, 4).to(torch.uint8)
    for reduction in ("mean", "none"):
        torch.testing.assert_close(cross_entropy(logits, vectors, reduction), cross_entropy(logits, labels, reduction))
    assert torch.equal(is_correct(logits, vectors), is_correct(logits, labels))
    predictions = torch.tensor([0, 3])
    assert torch.equal(holds_for_all(predictions, vectors), holds_for_all(predictions, labels))
    assert torch.equal(per_class(vectors, 4), per_class(labels, 4))


def test_several_labels_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    labels = torch.tensor([[1, 0, 1]], dtype=torch.uint8)
    total = math.log(sum(math.exp(value) for value in (2, 1, 0)))
    assert cross_entropy(logits, labels).item() == pytest.approx(total - (2 + 0) / 2, rel=1e-6)
    assert is_correct(logits, labels).tolist() == [True]
    assert is_correct(-logits, labels).tolist() == [True]
    assert is_correct(logits.roll(1, 1), labels).tolist() == [False]


def test_the_loss_is_least_where_the_labels_share_all_probability() -> None:
    labels = torch.tensor([[1, 1, 0, 0]], dtype=torch.uint8)
    even = cross_entropy(torch.tensor([[20.0, 20.0, 0.0, 0.0]]), labels)
    assert even.item() == pytest.approx(math.log(2), abs=1e-6)
    assert cross_entropy(torch.tensor([[22.0, 18.0, 0.0, 0.0]]), labels) > even


def two_labels() -> Subset:
    """Each image of three classes has its own label, and every other one the next class's as well."""
    data = subset(24)
    vectors = F.one_hot(data.labels, 3)
    vectors[::2] |= F.one_hot((data.labels[::2] + 1) % 3, 3)
    return Subset(data.images, vectors.to(torch.uint8), data.class_names, data.mean, data.std)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "boundary", "hopskipjump"])
def test_an_attack_on_several_labels_has_to_leave_all_of_them(name: str) -> None:
    model, data = small_model(), two_labels()
    single = Subset(data.images, data.labels.argmax(1), data.class_names, data.mean, data.std)
    attack = get_attack(name)
    settings = plugins.settings_class("attack", name)(
        **({"steps": 20} if name == "boundary" else {"steps": 3} if name != "fgsm" else {})
    )
    results = [
        run_attack(attack, settings, model, images, choose_images(images, 24), [0.0, 0.5], batch_size=12, seed=0)
        for images in (data, single)
    ]
    assert torch.equal(results[0].clean_correct, is_correct(model.eval()(data.batch(torch.arange(24))[0]), data.labels))
    # More labels to leave: no image is easier to fool from a label that it keeps.
    assert results[0].correct.float().mean() >= results[1].correct.float().mean()


def test_the_gradient_attack_ascends_the_loss_of_several_labels() -> None:
    model, data = small_model().eval(), two_labels()
    images, labels = data.batch(torch.arange(24))
    from creditflow.attacks.attack import Problem

    proposed = (
        get_attack("pgd")
        .propose(
            Problem(model.requires_grad_(False), images, labels), [0.05], plugins.settings_class("attack", "pgd")()
        )
        .images[0]
    )
    before, after = (cross_entropy(model(x), labels, "none") for x in (images, proposed))
    assert (after > before).float().mean() > 0.9


def test_other_attacks_refuse_several_labels() -> None:
    attack = get_attack("apgd_ce")
    with pytest.raises(UserError, match="needs images of one label each"):
        run_attack(
            attack,
            plugins.settings_class("attack", "apgd_ce")(),
            small_model(),
            two_labels(),
            torch.arange(4),
            [0.1],
            batch_size=4,
            seed=0,
        )
