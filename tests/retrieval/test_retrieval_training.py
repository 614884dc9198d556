"""Training for retrieval: proxies, resuming, what is measured; pictures of what is found."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from creditflow.compute.checkpoints import Resume
from creditflow.compute.randomness import Streams
from creditflow.data.prepared import Subset
from creditflow.feedback.apply import apply_rule
from creditflow.retrieval.codes import encode
from creditflow.retrieval.gallery import gallery
from creditflow.retrieval.hyp2 import HyP2
from creditflow.retrieval.ranking import mean_average_precision
from creditflow.retrieval.settings import HyP2Settings
from creditflow.retrieval.storage import Encoded
from creditflow.retrieval.task import Retrieval
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from helpers import small_model, subset

BITS = 16


def task(rate: float | None = 0.05) -> Retrieval:
    return Retrieval(HyP2(BITS, 3, HyP2Settings(), torch.Generator().manual_seed(0)), 20, rate)


def proxies(one: Retrieval) -> Tensor:
    return one.loss.proxies.detach().clone()


@pytest.mark.parametrize("rule", ["bp", "frsf", "brsf"])
def test_codes_are_learnt_and_the_history_says_how_well(rule: str) -> None:
    model, data, queries = small_model(n_classes=BITS), subset(60), subset(30, seed=1)
    own = task()
    settings = TrainingSettings(epochs=6, batch_size=10, learning_rate=0.01, angle_images=20)
    state, history = train(model, rule, TrainingData(data, queries), settings, Streams("test", 0), task=own)
    view = apply_rule(model, rule, state=state)
    found = mean_average_precision(encode(view, queries), queries.labels, encode(view, data), data.labels, 20)
    assert history[-1]["test_map"] == found > 0.9
    assert history[-1]["train_accuracy"] > 0.9 and history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert (history[-1]["update_angle"] < 1) == (rule == "bp")


def test_proxies_are_trained_at_their_own_rate() -> None:
    moved = {}
    for rate in (None, 1e-6, 0.05):
        own = task(rate)
        before = proxies(own)
        settings = TrainingSettings(epochs=1, batch_size=60, learning_rate=0.01)  # one step of Adam moves by the rate
        train(
            small_model(n_classes=BITS),
            "bp",
            TrainingData(subset(60), subset(30)),
            settings,
            Streams("test", 0),
            task=own,
        )
        moved[rate] = float((proxies(own) - before).abs().max())
    assert moved == pytest.approx({None: 0.01, 1e-6: 1e-6, 0.05: 0.05}, rel=0.05)


def test_a_resumed_run_ends_bit_for_bit_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    data, queries = subset(60), subset(30, seed=1)
    settings = TrainingSettings(epochs=4, batch_size=10, learning_rate=0.01)
    whole, own = small_model(n_classes=BITS), task()
    _, history = train(whole, "brsf", TrainingData(data, queries), settings, Streams("test", 1), task=own)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    resume = Resume(tmp_path / "checkpoint", "this run")
    with pytest.raises(KeyboardInterrupt):
        train(
            small_model(n_classes=BITS),
            "brsf",
            TrainingData(data, queries),
            settings,
            Streams("test", 1),
            task=task(),
            resume=resume,
            on_epoch=stop,
        )
    again, resumed = small_model(n_classes=BITS), task()
    _, found = train(
        again, "brsf", TrainingData(data, queries), settings, Streams("test", 1), task=resumed, resume=resume
    )
    assert found == history
    assert torch.equal(proxies(own), proxies(resumed))
    assert all(
        torch.equal(one, other)
        for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("several", [False, True])
def test_pictures_are_of_what_is_found(several: bool) -> None:
    shades = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1, 1).expand(12, 1, 4, 4) * 20
    labels = torch.arange(12) % 3
    if several:
        labels = torch.eye(3, dtype=torch.uint8)[labels] | torch.tensor(
            [[1, 0, 0]] * 6 + [[0, 0, 0]] * 6, dtype=torch.uint8
        )
    items = Subset(shades, labels, ("a", "b", "c"), (0.5,), (0.5,))
    codes = torch.ones(12, 12, dtype=torch.int8)
    for index in range(12):
        codes[index, :index] = -1  # item i is i bits from the first item, 11 - i from the last
    query, attacked = codes[:1], codes[11:]
    label = labels[:1]
    made = gallery(
        Subset(shades[:1], label, ("a", "b", "c"), (0.5,), (0.5,)),
        items,
        torch.tensor([0]),
        torch.full((1, 1, 4, 4), 0.5),
        Encoded(query, label),
        Encoded(attacked, label),
        Encoded(codes, labels),
    )
    assert made["clean_found"].shape == (1, 10, 1, 4, 4)
    assert made["clean_found"][0, :, 0, 0, 0].tolist() == [20 * index for index in range(10)]
    assert made["attacked_found"][0, :, 0, 0, 0].tolist() == [20 * index for index in range(11, 1, -1)]
    assert made["clean_query"].unique().tolist() == [0] and made["attacked_query"].unique().tolist() == [128]
    assert made["query_labels"].tolist() == label.tolist()
    assert made["clean_found_labels"][0].tolist() == labels[:10].tolist()
    assert made["attacked_found_labels"][0].tolist() == labels.flip(0)[:10].tolist()
    shared = [bool((labels[0] * labels[i]).sum()) if several else bool(labels[0] == labels[i]) for i in range(12)]
    assert made["clean_relevant"][0].tolist() == shared[:10]
    assert made["attacked_relevant"][0].tolist() == shared[:1:-1]
