"""Populations of networks: each rule against its algebra and autograd, training against a plain loop, members against
each other."""

from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from creditflow.compute import randomness
from creditflow.compute.checkpoints import Resume
from creditflow.core.errors import UserError
from creditflow.core.settings import NoSettings, parse
from creditflow.populations.adversaries import adversarial_images, input_gradient
from creditflow.populations.adversary_settings import AdversarySettings
from creditflow.populations.choices import ActivationName, InitialisationName, LossName
from creditflow.populations.images import FlatImages, Streams, held_out
from creditflow.populations.losses import LOSSES
from creditflow.populations.network import ACTIVATIONS, Network, forward, initial_parameters
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import Batch, get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.start import draw_start
from creditflow.populations.training import train_population

RULES = ["bp", "dfa", "fa", "kp", "pepita", "sal", "wm"]


def drawn(n: int = 200, n_in: int = 12, n_classes: int = 3, seed: int = 0) -> FlatImages:
    """Images whose brightest third tells their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, n_classes, (n,), generator=generator)
    pixels = torch.randint(0, 120, (n, n_in), generator=generator)
    part = n_in // n_classes
    for index, label in enumerate(labels.tolist()):
        pixels[index, label * part : (label + 1) * part] += 100
    return FlatImages(pixels.to(torch.uint8), labels, n_classes)


def settings(**changes: object) -> PopulationSettings:
    values = {"epochs": 3, "batch_size": 16, "hidden": [10], "validation_images": 40} | changes
    return parse(PopulationSettings, values, "settings")


def trained(name: str, members: list[Member], /, **changes: object) -> Population:
    return train_population(get_update_rule(name), members, drawn(), drawn(60, seed=1), settings(**changes))


def random_case(
    network: Network, rule: str, batch_size: int = 5, seed: int = 0, **values: object
) -> tuple[dict[str, Tensor], dict[str, Tensor], Batch, object]:
    generator = torch.Generator().manual_seed(seed)
    update_rule = get_update_rule(rule)
    rule_settings = update_rule.parse_settings(values)
    parameters = initial_parameters(network, "he_uniform", generator)
    feedback = update_rule.init(network, rule_settings, generator)
    images = torch.rand(batch_size, network.widths[0], generator=generator, dtype=torch.float64)
    labels = torch.randint(0, network.widths[-1], (batch_size,), generator=generator)
    targets = torch.nn.functional.one_hot(labels, network.widths[-1]).double()
    masks = tuple(
        (torch.rand(batch_size, width, generator=generator) < 0.8).double() / 0.8 for width in network.widths[1:-1]
    )
    return parameters, feedback, Batch(images, targets, masks), rule_settings


# --- rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_backpropagation_is_autograds_gradient(activation: str, loss: str) -> None:
    network = Network((6, 5, 4, 3), activation)
    parameters, feedback, batch, rule_settings = random_case(network, "bp")
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    hidden = batch.images
    for layer in (1, 2):
        z = hidden @ leaves[f"weight{layer}"].T + leaves[f"bias{layer}"]
        hidden = {"relu": torch.relu, "tanh": torch.tanh, "linear": lambda z: z}[activation](z) * batch.masks[layer - 1]
    logits = hidden @ leaves["weight3"].T + leaves["bias3"]
    if loss == "cross_entropy":
        value = torch.nn.functional.cross_entropy(logits, batch.targets)
    else:
        outputs = logits if loss == "mse" else logits.softmax(1)
        value = torch.nn.functional.mse_loss(outputs, batch.targets, reduction="sum") / len(logits)
    value.backward()
    update = get_update_rule("bp").step(network, LOSSES[loss], rule_settings, parameters, feedback, batch)
    torch.testing.assert_close(update.logits, logits.detach())
    torch.testing.assert_close(update.directions, {name: leaf.grad for name, leaf in leaves.items()})


def test_feedback_alignment_and_direct_feedback_alignment_are_their_closed_forms() -> None:
    network = Network((4, 6, 5, 3))
    for rule in ("fa", "dfa"):
        parameters, feedback, batch, rule_settings = random_case(network, rule)
        update = get_update_rule(rule).step(
            network, LOSSES["cross_entropy"], rule_settings, parameters, feedback, batch
        )
        x, y, (mask1, mask2) = batch[:3]
        z1 = x @ parameters["weight1"].T + parameters["bias1"]
        h1 = z1.clamp(min=0) * mask1
        z2 = h1 @ parameters["weight2"].T + parameters["bias2"]
        h2 = z2.clamp(min=0) * mask2
        e = ((h2 @ parameters["weight3"].T + parameters["bias3"]).softmax(1) - y) / len(x)
        d2 = (e @ feedback["feedback3" if rule == "fa" else "feedback2"]) * (z2 > 0) * mask2
        d1 = ((d2 @ feedback["feedback2"]) if rule == "fa" else (e @ feedback["feedback1"])) * (z1 > 0) * mask1
        expected = {
            "weight1": d1.T @ x,
            "bias1": d1.sum(0),
            "weight2": d2.T @ h1,
            "bias2": d2.sum(0),
            "weight3": e.T @ h2,
            "bias3": e.sum(0),
        }
        torch.testing.assert_close(update.directions, expected)


@pytest.mark.parametrize("output_error", ["first", "second"])
def test_pepita_is_the_papers_algebra_worked_by_hand(output_error: str) -> None:
    """One image, 3-4-2, without the library's own functions: Algorithm 1 of the paper, and its bias rule."""
    network = Network((3, 4, 2))
    parameters, feedback, batch, rule_settings = random_case(
        network, "pepita", batch_size=1, output_error=output_error, feedback_scale=2.0
    )
    w1, b1, w2, b2 = (parameters[name].tolist() for name in ("weight1", "bias1", "weight2", "bias2"))
    f, x, y = feedback["projection"].tolist(), batch.images[0].tolist(), batch.targets[0].tolist()

    def passed(image: list[float]) -> tuple[list[float], list[float]]:
        hidden = [
            max(0.0, sum(w * v for w, v in zip(row, image, strict=True)) + b) for row, b in zip(w1, b1, strict=True)
        ]
        z = torch.tensor(
            [sum(w * v for w, v in zip(row, hidden, strict=True)) + b for row, b in zip(w2, b2, strict=True)]
        ).double()
        return hidden, (z.exp() / z.exp().sum()).tolist()

    h, p = passed(x)
    e = [a - b for a, b in zip(p, y, strict=True)]
    x_mod = [v + sum(c * s for c, s in zip(row, e, strict=True)) for v, row in zip(x, f, strict=True)]
    h_mod, p_mod = passed(x_mod)
    e_out = e if output_error == "first" else [a - b for a, b in zip(p_mod, y, strict=True)]
    difference = [a - b for a, b in zip(h, h_mod, strict=True)]
    expected = {
        "weight1": torch.tensor([[d * v for v in x_mod] for d in difference]).double(),
        "bias1": torch.tensor(difference).double(),
        "weight2": torch.tensor([[d * v for v in h_mod] for d in e_out]).double(),
        "bias2": torch.tensor(e_out).double(),
    }
    assert max(map(abs, difference)) > 0.01
    no_mask = batch._replace(masks=())
    update = get_update_rule("pepita").step(
        network, LOSSES["mse_softmax"], rule_settings, parameters, feedback, no_mask
    )
    torch.testing.assert_close(update.directions, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_without_error_nothing_is_learned(rule: str) -> None:
    network = Network((4, 5, 3))
    parameters, feedback, batch, rule_settings = random_case(network, rule)
    targets = forward(network, parameters, batch.images, batch.masks).logits.softmax(1)
    update = get_update_rule(rule).step(
        network, LOSSES["cross_entropy"], rule_settings, parameters, feedback, batch._replace(targets=targets)
    )
    for name, direction in update.directions.items():
        assert float(direction.abs().max()) < 1e-15, name


def test_pepitas_masks_are_those_of_both_passes() -> None:
    network = Network((4, 30, 3))
    parameters, feedback, batch, rule_settings = random_case(network, "pepita", feedback_scale=1.0)
    update = get_update_rule("pepita").step(network, LOSSES["mse_softmax"], rule_settings, parameters, feedback, batch)
    (mask,) = batch.masks
    silent = (mask == 0).all(0)
    off = batch._replace(masks=(mask.clone().index_fill_(1, torch.tensor([0]), 0.0),))
    without = get_update_rule("pepita").step(network, LOSSES["mse_softmax"], rule_settings, parameters, feedback, off)
    assert bool((without.directions["weight1"][0] == 0).all())
    assert not bool(silent[0])
    assert bool((update.directions["weight1"][0] != 0).any())


# --- training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [{"momentum": 0.9, "drop_epochs": [1, 4], "weight_decay": 1e-3}, {"kind": "adam", "weight_decay": 1e-3}],
)
def test_backpropagation_in_a_population_is_a_plain_torch_loop(optimizer: dict[str, object]) -> None:
    """At least 50 steps with the same start and order of images, torch.optim's own optimisers and schedule."""
    members = [Member(3, 0.05), Member(1, 0.01)]
    result = trained(
        "bp", members, epochs=5, optimizer=optimizer, loss="cross_entropy", precision="float64", select="last"
    )
    train, _ = held_out(drawn(), 40)
    for index, member in enumerate(members):
        start = initial_parameters(
            result.network, "he_uniform", randomness.generator("population", "weights", member.seed)
        )
        net = torch.nn.Sequential(torch.nn.Linear(12, 10), torch.nn.ReLU(), torch.nn.Linear(10, 3)).double()
        for name, value in net.named_parameters():
            layer, kind = name.split(".")
            value.data = start[f"{kind}{1 if layer == '0' else 2}"].clone()
        kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        options = {key: value for key, value in optimizer.items() if key in ("momentum", "weight_decay")}
        torchs = kinds[str(optimizer.get("kind", "sgd"))](net.parameters(), lr=member.learning_rate, **options)
        schedule = torch.optim.lr_scheduler.MultiStepLR(torchs, optimizer.get("drop_epochs", []), 0.1)
        order = randomness.generator("population", "order", member.seed)
        n_steps = 0
        for _ in range(5):
            for chosen in torch.randperm(len(train), generator=order).split(16):
                torchs.zero_grad()
                torch.nn.functional.cross_entropy(
                    net(train.pixels[chosen].double() / 255), train.labels[chosen]
                ).backward()
                torchs.step()
                n_steps += 1
            schedule.step()
        assert n_steps >= 50
        for name, value in net.named_parameters():
            layer, kind = name.split(".")
            torch.testing.assert_close(
                result.parameters[f"{kind}{1 if layer == '0' else 2}"][index], value.detach(), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("rule", RULES)
def test_a_population_of_four_is_four_populations_of_one(rule: str) -> None:
    members = [Member(seed, rate) for rate in (0.1, 0.01) for seed in (0, 1)]
    changes = {
        "dropout": 0.2 * get_update_rule(rule).dropout,
        "optimizer": {"momentum": 0.9},
        "adversary": {"epsilon": 0.1, "steps": 3},
        "adversarial_training": True,
    }
    together = trained(rule, members, **changes)
    for index, member in enumerate(members):
        alone = trained(rule, [member], **changes)
        for name, value in alone.best.items():
            torch.testing.assert_close(together.best[name][index], value[0], rtol=1e-4, atol=1e-6)
        assert [row["epoch"] for row in alone.history[0]] == [1, 2, 3]
        for ours, theirs in zip(together.history[index], alone.history[0], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns(rule: str) -> None:
    result = trained(rule, [Member(0, 0.1)], epochs=15, optimizer={"momentum": 0.9})
    assert float(result.best_score[0]) > 0.9
    assert result.history[0][-1]["loss"] < 0.5 * result.history[0][0]["loss"]


def test_images_of_several_labels_are_learned() -> None:
    """Two bright thirds, two labels: a prediction of either is right, and chance is two of three."""
    first, second = drawn(300), drawn(300, seed=3)
    both = (
        torch.zeros(300, 3, dtype=torch.uint8)
        .scatter_(1, first.labels[:, None], 1)
        .scatter_(1, second.labels[:, None], 1)
    )
    data = FlatImages(torch.maximum(first.pixels, second.pixels), both, 3)
    _, targets = data.batch(torch.arange(300), torch.float64)
    assert set(targets.unique().tolist()) == {0.0, 0.5, 1.0} and torch.equal(targets.sum(1), torch.ones(300).double())
    result = train_population(
        get_update_rule("bp"), [Member(0, 0.1)], data, data, settings(epochs=15, optimizer={"momentum": 0.9})
    )
    assert float(result.best_score[0]) > 0.95


def test_members_of_one_seed_differ_by_their_rate_alone() -> None:
    streams = Streams([5, 5, 6], torch.device("cpu"))
    orders, masks = streams.orders(20), streams.masks((4, 7), 0.9, torch.float32)
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_dropout_masks_keep_the_share_they_promise() -> None:
    masks = Streams([0, 1], torch.device("cpu")).masks((500, 1000), 0.9, torch.float64)
    kept = (masks > 0).double().mean()
    assert abs(float(kept) - 0.9) < 5 * (0.09 / masks.numel()) ** 0.5 + 2**-16
    assert masks.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert float(masks[0].mean(0).std()) == pytest.approx(
        (0.1 / 0.9 / 500) ** 0.5, rel=0.1
    )  # independent from row to row


@pytest.mark.parametrize("rule", ["bp", "sal", "wm"])
def test_a_member_that_diverges_is_marked_and_the_others_go_on(rule: str) -> None:
    changes = {"loss": "mse", "activation": "linear", "angle_images": 8}
    result = trained(rule, [Member(0, 1e30), Member(0, 0.01)], **changes)
    assert int(result.diverged[0]) in (2, 3, 4, 5)
    assert int(result.diverged[1]) == 0
    assert [len(rows) for rows in result.history] == [0, 3]
    assert bool(result.norm.isfinite().all())
    assert all(bool(value.isfinite().all()) for value in (*result.best.values(), *result.best_feedback.values()))
    alone = trained(rule, [Member(0, 0.01)], **changes)
    torch.testing.assert_close(result.parameters["weight1"][1], alone.parameters["weight1"][0])


def test_divergence_in_the_very_last_step_is_noticed() -> None:
    result = trained("bp", [Member(0, 1e38)], epochs=1, batch_size=200, loss="mse", activation="linear")
    assert result.diverged.tolist() == [1]
    assert result.best_epoch.tolist() == [0] and result.history == [[]]


def test_the_feedback_state_that_is_kept_is_that_of_the_best_epoch() -> None:
    result = trained("sal", [Member(0, 0.05)], epochs=6, rule={"rate_v": 0.1, "rate_v_bar": 0.1, "rate_w_bar": 0.1})
    until = trained(
        "sal",
        [Member(0, 0.05)],
        epochs=int(result.best_epoch[0]),
        rule={"rate_v": 0.1, "rate_v_bar": 0.1, "rate_w_bar": 0.1},
    )
    for name, value in until.feedback.items():
        assert torch.equal(result.best_feedback[name], value)
    for name, value in until.parameters.items():
        assert torch.equal(result.best[name], value)


def test_patience_stops_a_member_and_its_best_epoch_stays() -> None:
    result = trained("bp", [Member(0, 1e-9), Member(0, 0.1)], epochs=6, patience=2, optimizer={"momentum": 0.9})
    assert (int(result.best_epoch[0]), int(result.stopped[0])) == (1, 3)
    assert len(result.history[0]) == 3 < len(result.history[1])
    assert result.best_score[1] == max(row["validation_accuracy"] for row in result.history[1])


@pytest.mark.parametrize(
    "changes", [{"dropout": 0.3, "optimizer": {"momentum": 0.9}}, {"optimizer": {"kind": "adam"}, "patience": 1}]
)
def test_a_resumed_run_ends_where_an_undisturbed_one_does(changes: dict[str, object], tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    members, resume = [Member(0, 0.05), Member(1, 0.02)], Resume(tmp_path / "population.checkpoint", "job")
    rule, chosen = get_update_rule("pepita"), settings(epochs=4, **changes)

    class KilledError(Exception):
        pass

    def kill(population: Population) -> None:
        if population.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train_population(rule, members, drawn(), drawn(60, seed=1), chosen, resume=resume, on_epoch=kill)
    epochs: list[int] = []
    resumed = train_population(
        rule,
        members,
        drawn(),
        drawn(60, seed=1),
        chosen,
        resume=resume,
        on_epoch=lambda population: epochs.append(population.epoch),
    )
    whole = train_population(rule, members, drawn(), drawn(60, seed=1), chosen)
    assert epochs[:1] == [3]
    assert resumed.history == whole.history
    for name, value in whole.best.items():
        assert torch.equal(resumed.best[name], value)
    for name in ("best_epoch", "stopped", "diverged"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name))


# --- adversaries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_input_gradient_is_autograds(loss: str) -> None:
    network = Network((6, 7, 5, 3))
    parameters, _, batch, _ = random_case(network, "bp")
    images = batch.images.clone().requires_grad_()
    LOSSES[loss].value(forward(network, parameters, images).logits, batch.targets).sum().backward()
    torch.testing.assert_close(input_gradient(network, loss, parameters, batch.images, batch.targets), images.grad)


@pytest.mark.parametrize("gap", [1.0, 10.0, 200.0])
def test_a_loss_in_float64_shows_float32_networks_the_gradient_behind_a_saturated_softmax(gap: float) -> None:
    """Its sign is that of the gradient of the same network in float64, where gaps of 300 leave numbers."""
    network = Network((6, 7, 3))
    parameters, _, batch, _ = random_case(network, "bp")
    logits = forward(network, parameters, batch.images).logits
    first, second = logits.topk(2, dim=1).values.unbind(1)
    parameters["weight2"] *= gap / (first - second).median()
    parameters["bias2"] *= 0
    single = {name: value.float() for name, value in parameters.items()}
    wide = {name: value.double() for name, value in single.items()}
    images, targets = batch.images.float(), batch.targets.float()
    exact = input_gradient(network, "mse_softmax", wide, images.double(), targets.double())
    shown = input_gradient(network, "mse_softmax", single, images, targets, float64_loss=True)
    assert shown.dtype == torch.float32
    there = (exact != 0).all(1)
    assert there.float().mean() > 0.3
    clear = exact[there].abs() > 1e-4 * exact[there].abs().amax(1, keepdim=True)
    assert torch.equal(shown[there].sign()[clear], exact[there].sign().float()[clear])
    hidden = (input_gradient(network, "mse_softmax", single, images, targets) == 0).all(1)
    assert bool(hidden[there].any()) == (gap > 100)


@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_adversarial_images_stay_in_the_ball_and_raise_the_loss(lowest: float) -> None:
    network, loss = Network((6, 20, 3)), LOSSES["mse_softmax"]
    cases = [random_case(network, "bp", 40, seed) for seed in range(3)]
    parameters = {name: torch.stack([case[0][name] for case in cases]) for name in cases[0][0]}
    images, targets = (torch.stack([case[2][index] for case in cases]) for index in (0, 1))
    values = vmap(lambda member, x, y: loss.value(forward(network, member, x).logits, y))
    start = torch.rand(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for steps, step, random_start in ((1, 0.1, False), (20, 0.02, True)):
        adversary = AdversarySettings(epsilon=0.1, steps=steps, step=step, random_start=random_start, lowest=lowest)
        result = adversarial_images(
            network, adversary, parameters, images, targets, start if adversary.random_start else None
        )
        assert float((result - images).abs().max()) <= 0.1 + 1e-12
        assert float(result.max()) <= 1
        assert float(result.min()) >= lowest
        assert (float(result.min()) < 0) == (lowest < 0)
        before, after = values(parameters, images, targets), values(parameters, result, targets)
        assert bool((after.mean(1) > before.mean(1)).all())
        assert float((after >= before - 1e-9).double().mean()) > 0.9


def test_with_nothing_to_select_no_image_need_be_held_out() -> None:
    result = trained("bp", [Member(0, 0.1)], select="last", validation_images=0)
    assert result.best_epoch.tolist() == [3]
    assert set(result.history[0][0]) == {"epoch", "loss", "train_accuracy"}
    assert torch.equal(result.best["weight1"], result.parameters["weight1"])


def test_adversarial_training_trains_on_what_it_made() -> None:
    """The second step's first-layer input is the adversarial image: with a huge step of a linear unit this shows in the
    weights."""
    changes = {
        "epochs": 1,
        "batch_size": 160,
        "select": "last",
        "precision": "float64",
        "adversary": {"epsilon": 0.2, "steps": 1, "step": 0.2, "random_start": False},
    }
    result = trained("pepita", [Member(0, 0.1)], adversarial_training=True, **changes)
    network, rule = result.network, get_update_rule("pepita")
    rule_settings = rule.parse_settings({})
    parameters = initial_parameters(network, "he_uniform", randomness.generator("population", "weights", 0))
    feedback = rule.init(network, rule_settings, randomness.generator("population", "feedback", 0))
    train, _ = held_out(drawn(), 40)
    images, targets = train.batch(
        torch.randperm(160, generator=randomness.generator("population", "order", 0)), torch.float64
    )
    slope = input_gradient(network, "mse_softmax", parameters, images, targets)
    adversarial = (images + 0.2 * slope.sign()).clamp(0, 1)
    for seen in (images, adversarial):
        update = rule.step(network, LOSSES["mse_softmax"], rule_settings, parameters, feedback, Batch(seen, targets))
        parameters = {name: value - 0.1 * update.directions[name] for name, value in parameters.items()}
    torch.testing.assert_close({name: value[0] for name, value in result.parameters.items()}, parameters)


def test_choosing_by_adversarial_accuracy_chooses_by_it() -> None:
    changes = {"epochs": 4, "select": "adversarial", "adversary": {"epsilon": 0.1, "steps": 5}, "adversary_images": 40}
    result = trained("bp", [Member(0, 0.3)], **changes)
    rows = result.history[0]
    best = max(rows, key=lambda row: row["validation_adversarial_accuracy"])
    assert int(result.best_epoch[0]) == best["epoch"]
    assert all(row["validation_adversarial_accuracy"] <= row["validation_accuracy"] for row in rows)


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_images": 0}, "validation_images is 0, but something is to be selected"),
        ({"validation_images": 200}, "200 validation images of 200 leave none to train on"),
        ({"hidden": []}, r"hidden must be a list of at least 1, not \[\]"),
        ({"loss": "hinge"}, "loss must be 'mse', 'mse_softmax' or 'cross_entropy', not 'hinge'"),
        ({"select": "adversarial"}, "need an adversary"),
        ({"adversary": {"epsilon": -1}}, "adversary.epsilon must be at least 0, not -1"),
        ({"adversary": {"epsilon": 0.1, "loss": "hinge"}}, "adversary.loss must be 'mse', 'mse_softmax' or"),
        ({"optimizer": {"kind": "rmsprop"}}, "optimizer.kind must be 'sgd' or 'adam', not 'rmsprop'"),
        ({"optimizer": {"speed": 1}}, "optimizer: unknown key 'speed'"),
        ({"patience": 0}, "patience must be at least 1, not 0"),
        ({"patience": 1, "select": "last"}, "patience needs a selection, which select: last does not make"),
        (
            {"initialisation": "zero"},
            "initialisation must be 'he_uniform', 'default', 'gaussian' or 'xavier_normal', not 'zero'",
        ),
        (
            {"rule": {"output_error": "third"}},
            "settings of rule PEPITA: output_error must be 'first' or 'second', not 'third'",
        ),
        (
            {"select": "adversarial", "adversary": {"epsilon": 0.1}, "adversary_images": 0},
            "adversary_images must be at least 1, not 0",
        ),
        (
            {"select_on": "test", "adversary": {"epsilon": 0.1}, "curve_images": 5},
            "curve_images are test images, which with select_on: test would choose",
        ),
        ({"feedback_learning_rate": 0.1}, "feedback_learning_rate needs a feedback_optimizer"),
        ({"hidden": [10**7, 10**7]}, "MiB each need .* are available: 0 fit"),
        ({"hidden": [10**9]}, "hidden.0 must be at most 10000000, not 1000000000"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trained("pepita", [Member(0, 0.1)], **changes)
    assert "\n" not in str(caught.value)


def test_dropout_is_refused_by_rules_that_know_none() -> None:
    with pytest.raises(UserError, match="SAL knows no dropout; leave it out"):
        trained("sal", [Member(0, 0.1)], dropout=0.1)


def test_a_networks_feedback_counts_in_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("creditflow.populations.memory.available_bytes", lambda device: 600_000)
    trained("bp", [Member(0, 0.1)], hidden=[40, 40])
    with pytest.raises(UserError, match="0 fit"):
        trained(
            "ddtp_rhl",
            [Member(0, 0.1)],
            hidden=[40, 40],
            activation="tanh",
            rule={"step_size": 0.1, "sigma": 0.1, "width": 4000},
        )


def test_steps_of_the_feedback_optimiser_count_once() -> None:
    """Adam's first steps are as long as the rate: with a step counted twice they would not be."""
    chosen = {
        "feedback_optimizer": {"kind": "adam"},
        "feedback_learning_rate": 1e-3,
        "batch_size": 160,
        "rule": {"initial_steps": 0},
    }
    result, rule = trained("wm", [Member(0, 1e-9)], epochs=1, **chosen), get_update_rule("wm")
    start = draw_start(rule, rule.parse_settings({}), Network((12, 10, 3)), settings(), 0)[1]
    moved = (result.feedback["feedback2"][0].double() - start["feedback2"]).abs()
    assert float(moved.max()) == pytest.approx(1e-3, rel=0.01)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(UserError, match="unknown update rule 'pepit'; did you mean 'pepita'"):
        get_update_rule("pepit")


def test_rules_without_settings_take_none() -> None:
    assert isinstance(get_update_rule("bp").parse_settings({}), NoSettings)
    with pytest.raises(UserError, match="unknown key 'x'"):
        trained("bp", [Member(0, 0.1)], rule={"x": 1})


def test_vmapped_steps_are_each_networks_own() -> None:
    network = Network((5, 6, 4))
    for name in RULES:
        rule, cases = get_update_rule(name), [random_case(network, name, seed=seed) for seed in range(3)]
        rule_settings = cases[0][3]
        stacked = [{key: torch.stack([case[part][key] for case in cases]) for key in cases[0][part]} for part in (0, 1)]
        batch = Batch(
            *(torch.stack([case[2][part] for case in cases]) for part in (0, 1)),
            (torch.stack([case[2].masks[0] for case in cases]),),
        )
        together = vmap(partial(rule.step, network, LOSSES["mse_softmax"], rule_settings))(*stacked, batch)
        for index, case in enumerate(cases):
            alone = rule.step(network, LOSSES["mse_softmax"], rule_settings, *case[:3])
            torch.testing.assert_close(
                {key: value[index] for key, value in together.directions.items()}, alone.directions
            )


def test_the_names_that_settings_choose_from_are_those_of_the_library() -> None:
    assert get_args(ActivationName) == tuple(ACTIVATIONS)
    assert get_args(LossName) == tuple(LOSSES)
    for kind in get_args(InitialisationName):
        initial_parameters(Network((3, 2)), kind, torch.Generator())
    with pytest.raises(UserError, match=f"choose from: {', '.join(get_args(InitialisationName))}$"):
        initial_parameters(Network((3, 2)), "zero", torch.Generator())
