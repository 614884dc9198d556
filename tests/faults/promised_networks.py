"""What provokes the promised refusals around networks: models, training, retrieval; see test_promises.py."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from creditflow.compute.randomness import Streams
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.data.prepared import Subset
from creditflow.data.settings import InputSettings
from creditflow.models import published, storage, torchvision_models, weights
from creditflow.models.backbones import mlp
from creditflow.models.build import ModelSpec, build_model
from creditflow.populations.images import flat_images, held_out
from creditflow.populations.memory import check_memory
from creditflow.populations.network import Network, initial_parameters, network_of
from creditflow.populations.optimizer_settings import OptimizerSettings
from creditflow.populations.population import Member
from creditflow.populations.rule import get_update_rule
from creditflow.populations.rules import sal
from creditflow.populations.rules.settings import sal as sal_settings
from creditflow.populations.selection import chosen_rate, member_index
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.start import check_rule, network_for, start_population
from creditflow.populations.storage import load_population
from creditflow.populations.training import train_population
from creditflow.retrieval import codes, hyp2, protocol, ranking
from creditflow.retrieval import storage as codes_on_disk
from creditflow.retrieval.settings import HyP2Settings, Protocol
from creditflow.retrieval.training import retrieval_training
from creditflow.retrieval.zeta import zeta
from creditflow.training import accuracy, decay, loop, modes, part
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from faults.promised_data import Promised, a_dataset, written

DIGITS = Subset(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6) % 2, ("a", "b"), (0.5,), (0.25,))
BITS = torch.ones(3, 8, dtype=torch.int8)
HYP2 = HyP2Settings(zeta=0.5)
RETRIEVAL = {"bits": 8, "top": 5, "loss": {"zeta": 0.5}, "protocol": {"kind": "per_class", "query": 9, "train": 9}}


class Answers(nn.Module):
    """A network that gives the same number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 8), self.value)


def network() -> Any:
    return build_model(ModelSpec("small_cnn", (1, 8, 8), 2, (0.5,), (0.25,)), "finetune", 0)


FROZEN = TrainingSettings(epochs=1, batch_size=4, learning_rate=0.01, batch_norm="frozen")


def train(rule: str = "bp", stop: Any = None, weight: float = 1.0, **change: Any) -> object:
    model = network()
    with torch.no_grad():
        model.head.weight.mul_(weight)
    chosen = TrainingSettings(**({"epochs": 1, "batch_size": 4, "learning_rate": 0.01} | change))
    data = TrainingData(DIGITS, DIGITS)
    return loop.train(model, rule, data, chosen, Streams("finetune", 0), stop=stop)


def code_file(folder: Path) -> Path:
    parts = {name: codes_on_disk.Encoded(BITS.clone(), torch.arange(3)) for name in codes_on_disk.PARTS}
    codes_on_disk.save_codes(folder / "c", parts, {"model": "a"}, {"rule": "bp"})
    return folder / "c"


def divided(folder: Path, **keys: Any) -> object:
    return protocol.load_retrieval(a_dataset(folder), Protocol(**keys), None, InputSettings())


def ranked(**change: Any) -> object:
    labels = torch.arange(3)
    given = {"codes": BITS, "labels": labels, "database_codes": BITS, "database_labels": labels, "k": 2} | change
    return ranking.average_precisions(*given.values())


def proxies(n_classes: int) -> hyp2.HyP2:
    return hyp2.HyP2(8, n_classes, HYP2, torch.Generator())


def for_retrieval(folder: Path, values: dict[str, Any]) -> object:
    streams, cpu = Streams("finetune", 0), torch.device("cpu")
    return retrieval_training(values, a_dataset(folder), None, InputSettings(), streams, cpu)


TRAINING: dict[str, Promised] = {
    "retrieval.codes.encode": (
        UserError,
        [lambda f: codes.encode(Answers(float("nan")), DIGITS), lambda f: codes.encode(Answers(0.0), DIGITS)],
    ),
    "retrieval.hyp2.HyP2": (UserError, [lambda f: proxies(1)]),
    "retrieval.hyp2.HyP2.forward": (
        UserError,
        [lambda f: proxies(2)(torch.ones(3, 8), torch.zeros(3, 2, dtype=torch.uint8))],
    ),
    "retrieval.protocol.load_retrieval": (
        UserError,
        [
            lambda f: divided(f, kind="per_class", query=99, train=1),
            lambda f: divided(f, kind="random", query=4, train=4),
            lambda f: divided(f, kind="lists"),
            lambda f: protocol.load_retrieval(f / "x", Protocol(kind="lists"), None, InputSettings()),
        ],
    ),
    "retrieval.protocol.check_apart": (UserError, [lambda f: protocol.check_apart(["a"], ["b", "a"], "database", f)]),
    "retrieval.ranking.average_precisions": (
        UserError,
        [
            lambda f: ranked(k=0),
            lambda f: ranked(codes=BITS[:0], labels=torch.arange(0)),
            lambda f: ranked(database_codes=BITS[:, :4]),
            lambda f: ranked(labels=torch.arange(2)),
        ],
    ),
    "retrieval.storage.load_codes": (
        UserError,
        [
            lambda f: codes_on_disk.load_codes(written(f / "x"), {}),
            lambda f: codes_on_disk.load_codes(code_file(f), {"model": "b"}),
            lambda f: codes_on_disk.load_codes(code_file(f), {"model": "a"}, {"rule": "fa"}),
        ],
    ),
    "retrieval.training.retrieval_training": (
        UserError,
        [lambda f: for_retrieval(f, RETRIEVAL), lambda f: for_retrieval(f, RETRIEVAL | {"bitz": 1})],
    ),
    "retrieval.zeta.zeta": (UserError, [lambda f: zeta(7, 10), lambda f: zeta(16, 10_000_000)]),
    "training.accuracy.correct_predictions": (
        UserError,
        [lambda f: accuracy.correct_predictions(Answers(float("inf")), DIGITS)],
    ),
    "training.modes.set_training_mode": (
        UserError,
        [(lambda f: modes.set_training_mode(nn.Linear(2, 2), "bp", FROZEN), "leave it out")],
    ),
    "training.decay.below_decay": (
        UserError,
        [
            (
                lambda f: decay.below_decay(nn.Linear(2, 2), "fa", torch.ones(1, 2), torch.zeros(1).long(), 0.1),
                "generator",
            ),
            (lambda f: decay.below_decay(nn.Tanh(), "usf", torch.ones(1, 2), torch.zeros(1).long(), 0.1), "no Linear"),
        ],
    ),
    "training.loop.train": (
        UserError,
        [
            lambda f: train("bpp"),
            lambda f: train(weight=float("nan")),
            lambda f: train(train_images=7),
            lambda f: train(stop=loop.Stop(1.1)),
        ],
    ),
    "training.part.training_part": (
        UserError,
        [lambda f: part.training_part(DIGITS, 7), lambda f: part.training_part(DIGITS, 1)],
    ),
}


# --- models -------------------------------------------------------------------------------------------------------


def a_model(folder: Path, **edit: Any) -> Path:
    """Writes a network; `edit` changes its sidecar, which is sealed again."""
    path = folder / "m.safetensors"
    storage.save_model(path, network())
    if edit:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        content.pop("seal")
        written(path.with_suffix(".json"), json.dumps(files.seal(content | edit)))
    return path


def without(path: Path) -> None:
    path.unlink()


def broken(folder: Path, suffix: str) -> Path:
    path = a_model(folder)
    victim = path.with_suffix(suffix)
    victim.write_bytes(victim.read_bytes()[:-3])
    return path


def saved_by_torch(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def spec(backbone: str, shape: tuple[int, int, int]) -> ModelSpec:
    return ModelSpec(backbone, shape, 2, (0.5,) * shape[0], (0.25,) * shape[0])


RESNET = "resnet18"
STATE = {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)}

MODELS: dict[str, Promised] = {
    "models.backbones.lenet5.build": (UserError, [lambda f: build_model(spec("lenet5", (1, 9, 9)), "x", 0)]),
    "models.backbones.mlp.build": (UserError, [lambda f: mlp.build((1, 8, 8), activation="swoosh")]),
    "models.backbones.small_cnn.build": (UserError, [lambda f: build_model(spec("small_cnn", (1, 4, 4)), "x", 0)]),
    "models.build.ModelSpec.from_json": (
        (KeyError, TypeError),
        [lambda f: ModelSpec.from_json({}), lambda f: ModelSpec.from_json(3)],
    ),
    "models.build.build_model": (
        UserError,
        [
            lambda f: build_model(spec("lenet55", (1, 8, 8)), "x", 0),
            lambda f: build_model(spec(RESNET, (3, 4, 4)), "x", 0),
        ],
    ),
    "models.published.torchvision_model": (UserError, [lambda f: published.torchvision_model("lenet5")]),
    "models.published.verify": (
        UserError,
        [
            (lambda f: published.verify(written(f / "x.pth"), "0" * 8), "is truncated, corrupt or another file"),
            lambda f: published.verify(written(f / "x-0123abcd.pth"), None),
            lambda f: published.verify(written(f / "x.pth"), None),
            lambda f: published.verify(written(f / "x.pth"), "no hex"),
        ],
    ),
    "models.published.fetch_weights": (
        UserError,
        [
            lambda f: published.fetch_weights(RESNET, "IMAGENET99", [], f / "t"),
            lambda f: published.fetch_weights("lenet5", "IMAGENET1K_V1", [], f / "t"),
            lambda f: published.fetch_weights(RESNET, "IMAGENET1K_V1", [weights_in(f)], f / "t"),
        ],
    ),
    "models.published.import_state": (
        UserError,
        [
            lambda f: published.import_state(RESNET, written(f / "x"), "IMAGENET1K_V1", 64),
            lambda f: published.import_state(RESNET, saved_by_torch(f / "x", [1]), "IMAGENET1K_V1", 64),
            lambda f: published.import_state(RESNET, saved_by_torch(f / "x", {}), "IMAGENET1K_V1", 64),
        ],
    ),
    "models.storage.save_model": (
        UserError,
        [
            lambda f: storage.save_model(f / "m.json", network()),
            lambda f: storage.save_model(f, network()),
            lambda f: storage.save_model(written(f / "file") / "m", network()),
            lambda f: storage.save_model(f / "m", nn.Linear(2, 2)),
            lambda f: storage.save_model(f / "m", "no model"),  # type: ignore[arg-type]
            lambda f: storage.save_model(f / "m", network(), feedback={"a": 1}),  # type: ignore[dict-item]
            lambda f: storage.save_model(f / "m", network(), fact=object()),
            lambda f: storage.save_model(f / "m", network(), seal="mine"),
        ],
    ),
    "models.storage.load_model": (
        UserError,
        [
            lambda f: storage.load_model(f / "absent.safetensors"),
            lambda f: (without(a_model(f).with_suffix(".json")), storage.load_model(f / "m.safetensors")),
            (lambda f: storage.load_model(broken(f, ".safetensors")), "not the file that its sidecar describes"),
            lambda f: storage.load_model(broken(f, ".json")),
            lambda f: storage.load_model(a_model(f, format=99)),
            lambda f: storage.load_model(a_model(f, spec={"backbone": "lenet5"})),
        ],
    ),
    "models.storage.load_feedback": (UserError, [lambda f: storage.load_feedback(broken(f, ".feedback.safetensors"))]),
    "models.storage.read_sidecar": (
        UserError,
        [
            lambda f: storage.read_sidecar(f / "absent.safetensors"),
            lambda f: storage.read_sidecar(written(f / "m.json").with_suffix(".safetensors")),
            lambda f: storage.read_sidecar(a_model(f, sha256=[])),
        ],
    ),
    "models.torchvision_models.TorchvisionModel.build": (
        UserError,
        [
            lambda f: published.torchvision_model(RESNET).build((1, 64, 64)),
            lambda f: published.torchvision_model(RESNET).build((3, 2, 2)),
        ],
    ),
    "models.torchvision_models.TorchvisionModel.weights_address": (
        UserError,
        [lambda f: published.torchvision_model(RESNET).weights_address("mine")],
    ),
    "models.torchvision_models.TorchvisionModel.split": (
        UserError,
        [lambda f: published.torchvision_model(RESNET).split({"conv.weight": torch.zeros(1)})],
    ),
    "models.torchvision_models.load_into": (
        UserError,
        [lambda f: torchvision_models.load_into(nn.Linear(2, 3), {"weight": torch.zeros(3, 3)}, "the weights")],
    ),
    "models.weights.load_weights": (
        UserError,
        [
            lambda f: weights.load_weights(nn.Linear(2, 3), f / "absent.pth"),
            lambda f: weights.load_weights(nn.Linear(2, 3), written(f / "x.safetensors")),
            lambda f: weights.load_weights(nn.Linear(2, 3), saved_by_torch(f / "x", STATE)),
            lambda f: weights.load_weights(nn.Linear(2, 3), saved_by_torch(f / "x", STATE), sha256="0" * 8),
        ],
    ),
    "models.weights.put_weights": (UserError, [lambda f: weights.put_weights(nn.Linear(2, 3), STATE, f / "x")]),
    "models.weights.state_of": (UserError, [lambda f: weights.state_of(saved_by_torch(f / "x", "text"))]),
    "models.weights.check_sha256": (
        UserError,
        [
            lambda f: weights.check_sha256(f / "absent", "0" * 8),
            lambda f: weights.check_sha256(written(f / "x"), "0" * 8),
        ],
    ),
    "models.weights.check_digits": (UserError, [lambda f: weights.check_digits(f / "x", "0123")]),
    "models.weights.compare_digits": (UserError, [lambda f: weights.compare_digits(f / "x", "0" * 64, "1" * 8)]),
    "models.weights.read_pickled": (
        UserError,
        [
            lambda f: weights.read_pickled(f / "absent", "do so"),
            lambda f: weights.read_pickled(written(f / "x"), "do so"),
            lambda f: weights.read_pickled(saved_by_torch(f / "x", {"a": Path("x")}), "do so"),
        ],
    ),
}


def weights_in(folder: Path) -> Path:
    """Puts a damaged file of published weights into a folder, under its published name."""
    address = published.torchvision_model(RESNET).weights_address("IMAGENET1K_V1")
    return written(folder / address.rpartition("/")[2]).parent


# --- populations --------------------------------------------------------------------------------------------------

FLAT = flat_images(DIGITS)
PLAIN = PopulationSettings(hidden=(4,), epochs=1, batch_size=4, validation_images=2)
NETWORK = Network((64, 4, 2), "relu")
CONVOLVING = PLAIN.model_copy(update={"convolutions": (3,)})
SHAPELESS = replace(FLAT, shape=None)
SAVED = SimpleNamespace(content={"members": [{"seed": 0, "learning_rate": 0.1, "diverged_at_step": 3}]})


def start(network: Network) -> object:
    return start_population(get_update_rule("bp"), None, network, [Member(0, 0.1)], PLAIN, torch.device("cpu"))


def descending(*chosen: int) -> list[int]:
    return sal.widths(NETWORK, sal_settings.Settings(downstream=chosen))


POPULATIONS: dict[str, Promised] = {
    "populations.images.flat_images": (
        UserError,
        [
            lambda f: flat_images(replace(DIGITS, inputs=InputSettings(size=8))),
            lambda f: flat_images(replace(DIGITS, labels=torch.zeros(6, 2, dtype=torch.uint8))),
        ],
    ),
    "populations.images.held_out": (UserError, [lambda f: held_out(FLAT, 6)]),
    "populations.memory.check_memory": (
        UserError,
        [lambda f: check_memory(NETWORK, 0, 10**12, PLAIN, torch.device("cpu"))],
    ),
    "populations.network.network_of": (
        UserError,
        [lambda f: network_of(64, (4,), 2, "relu", (3,)), lambda f: network_of(64, (4,), 2, "relu", (3,), (3, 8, 8))],
    ),
    "populations.network.initial_parameters": (
        UserError,
        [lambda f: initial_parameters(NETWORK, "he", torch.Generator())],
    ),
    "populations.optimizer_settings.OptimizerSettings.of_layer": (
        UserError,
        [lambda f: OptimizerSettings(layer_rates=(1.0,)).of_layer("weight2")],
    ),
    "populations.rule.get_update_rule": (UserError, [lambda f: get_update_rule("pepit")]),
    "populations.rule.UpdateRule.parse_settings": (
        UserError,
        [lambda f: get_update_rule("sal").parse_settings({"x": 1})],
    ),
    "populations.rules.sal.widths": (UserError, [lambda f: descending(3, 3), lambda f: descending(3, 3, 3)]),
    "populations.selection.chosen_rate": (UserError, [lambda f: chosen_rate(SAVED, "the population")]),
    "populations.selection.member_index": (UserError, [lambda f: member_index(SAVED, 7, 0.1, "the population")]),
    "populations.start.network_for": (UserError, [lambda f: network_for(SHAPELESS, CONVOLVING)]),
    "populations.start.check_rule": (
        UserError,
        [
            lambda f: check_rule(get_update_rule("sal"), NETWORK, PLAIN.model_copy(update={"dropout": 0.5})),
            lambda f: check_rule(get_update_rule("pepita"), replace(NETWORK, convolutions=(3,)), PLAIN),
        ],
    ),
    "populations.start.start_population": (UserError, [lambda f: start(Network((10**6, 10**6, 2), "relu"))]),
    "populations.storage.load_population": (
        UserError,
        [
            lambda f: load_population(f / "absent.safetensors"),
            lambda f: load_population(written(f / "p.json").with_suffix(".safetensors")),
            lambda f: load_population(written(f / "p.json", json.dumps(files.seal({"format": 1})))),
        ],
    ),
    "populations.training.train_population": (
        UserError,
        [
            lambda f: train_population(
                get_update_rule("bp"), [Member(0, 0.1)], FLAT, FLAT, PLAIN.model_copy(update={"validation_images": 6})
            )
        ],
    ),
}
