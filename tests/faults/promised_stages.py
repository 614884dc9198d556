"""What provokes the promised refusals that stage scripts share; see test_promises.py."""

import fcntl
import json
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from creditflow.compute.provenance import Stopwatch
from creditflow.core.errors import UserError
from creditflow.models.build import ImageClassifier, ModelSpec, build_model
from creditflow.models.storage import save_model
from creditflow.records.record import Keys, Metric, write_record
from creditflow.stages import (
    attacking,
    command_line,
    finetuning,
    given,
    identity,
    measuring,
    populations,
    retrieval,
    settings_help,
    training,
)
from creditflow.training.task import Classification, TrainingData
from faults.promised_data import Promised, Provoke, a_dataset, written
from faults.promised_networks import DIGITS, RETRIEVAL, code_file

CPU = torch.device("cpu")
TASK = Classification()
SPEC = ModelSpec("mlp", (1, 2, 2), 2, (0.5,), (0.25,), {"hidden": [3]})
TRAIN = '{"epochs": 1, "batch_size": 2, "learning_rate": 0.1}'

NETWORK = """
import torch
from torch import nn

class Pair(nn.Module):
    def forward(self, x):
        return x, x

class Counts(nn.Module):
    calls = 0
    def forward(self, x):
        self.calls += 1
        return self.calls * x.flatten(1)[:, :2]

class TellsTheJudge(nn.Module):
    def forward(self, x):
        return (-1 if torch.is_grad_enabled() else 1) * x.flatten(1)[:, :2]

def pair(): return Pair()
def wide(): return nn.Sequential(nn.Flatten(), nn.Linear(4, 7))
def plain(): return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
"""


def a_network(folder: Path, name: str = "m", spec: ModelSpec = SPEC, rule: str = "bp", **facts: Any) -> Path:
    """Writes a network of ours for the images of `a_dataset`."""
    path = folder / f"{name}.safetensors"
    save_model(path, build_model(spec, "finetune", 0), rule=rule, **facts)
    return path


def a_given_network(folder: Path, make: str = "plain", **facts: Any) -> Path:
    path, factory = folder / "given.safetensors", f"{written(folder / 'net.py', NETWORK)}:{make}"
    save_model(path, nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), factory=factory, **facts)
    return path


def of_finetuning(folder: Path, pretrained: Path | None = None, **change: Any) -> Namespace:
    """Returns the options of a fine-tuning that is to keep a head."""
    settings = json.loads(TRAIN) | {"head": "kept"} | change
    return Namespace(settings=settings, pretrained=pretrained, data=a_dataset(folder), classes=None)


def head_of(folder: Path, **facts: Any) -> None:
    """Keeps the head of a network of which these facts are known."""
    path = a_network(folder, **facts)
    networks = (build_model(SPEC, "finetune", seed) for seed in (0, 1))
    finetuning.keep_head(of_finetuning(folder, path), *networks)


def a_record(folder: Path, **keys: Any) -> Path:
    filed = {"dataset": "p", "backbone": "mlp", "rule": "fa", "seed": 0, "attack": "clean", "gradient": "none"} | keys
    outcomes = {"correct": np.array([[True, False]]), "example": np.arange(2)}
    path = folder / "r.json"
    write_record(path, Keys("manual", "classification", **filed), [Metric("accuracy", None, 0.5, 2)], outcomes)
    return path


def of_measurement(folder: Path, **change: Any) -> Namespace:
    """Returns the options of a stage that measures a network on images; both fit each other."""
    options = {"expect_data": None, "expect_model": None, "classes": None, "input": {}, "experiment": "manual"}
    options |= {"dataset_name": "d", "seed": 0, "data": a_dataset(folder), "gradient": "exact", "surrogate": []}
    options |= {"expect_surrogate": [], "retrieval": RETRIEVAL}
    if "model" not in change:
        options["model"] = a_network(folder)
    return Namespace(**(options | change))


def loaded(folder: Path, **change: Any) -> object:
    return measuring.loaded(of_measurement(folder, **change), CPU)


def viewed(gradient: str, given_network: bool = False) -> Provoke:
    def provoke(folder: Path) -> object:
        path = a_given_network(folder) if given_network else a_network(folder)
        model: Any = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) if given_network else build_model(SPEC, "x", 0)
        return attacking.attacker_view(of_measurement(folder, model=path, gradient=gradient), model)

    return provoke


def helped(gradient: str, *surrogates: tuple[str, ModelSpec], **change: Any) -> Provoke:
    def provoke(folder: Path) -> object:
        files = [(name, a_network(folder, f"s{number}", spec)) for number, (name, spec) in enumerate(surrogates)]
        args = of_measurement(folder, gradient=gradient, surrogate=files, **change)
        return attacking.helpers(args, build_model(SPEC, "x", 0))

    return provoke


def asked(*arguments: str) -> Provoke:
    """Parses a command line that asks for the settings of an attack."""

    def provoke(folder: Path) -> object:
        parser = ArgumentParser()
        attacking.add_attack_options(parser, "attack", "images", "{}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["attack.py", *arguments])
            return attacking.parse_attack_options(parser, "attack")

    return provoke


def shown(folder: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fetch.py", "--dataset", "digitz", "--help-settings"])
        return settings_help.parse_or_show_settings(ArgumentParser(), "dataset", "dataset")


def attack_options(**change: Any) -> Namespace:
    return Namespace(**({"attack": "pgd", "gradient": "exact", "settings": {}} | change))


def taken_over(make: str = "plain", **change: Any) -> Provoke:
    def provoke(folder: Path) -> object:
        factory = f"{written(folder / 'net.py', NETWORK)}:{make}"
        options = {"weights": None, "sha256": None, "data": a_dataset(folder), "classes": None, "input": {}, "seed": 0}
        return given.checked_model(Namespace(factory=factory, **(options | change)))

    return provoke


def trained(folder: Path, settings: str = TRAIN, rule: str = "bp", model: ImageClassifier | None = None) -> object:
    arguments = ["--data", str(a_dataset(folder)), "--settings", settings, "--output", str(folder / "m.safetensors")]
    args = training.training_parser(None).parse_args(arguments)
    data, network = training.classification_data(args, CPU), model or build_model(SPEC, "finetune", 0)
    return training.train_stage(args, network, rule, data, TASK, {"stage": "finetune"}, Stopwatch(CPU))


def trained_twice(folder: Path) -> object:
    with (folder / "m.safetensors.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return trained(folder)


def a_population(folder: Path, *more: str, **change: Any) -> object:
    settings = {"hidden": [3], "epochs": 1, "batch_size": 2, "validation_images": 1} | change
    arguments = ["--data", str(a_dataset(folder)), "--settings", json.dumps(settings), "--rule", "bp", "--seeds", "0"]
    arguments += ["--learning-rates", "0.1", "--output", str(folder / "m.safetensors"), *more]
    return populations.train_population_stage(populations.population_parser(None).parse_args(arguments), Stopwatch(CPU))


def stopping(name: str, match: bool = True, **keys: Any) -> Provoke:
    def provoke(folder: Path) -> object:
        record = a_record(folder, **keys) if match else None
        return training.stop_at(
            Namespace(rule=name, match=record, experiment="manual", dataset_name="p", data=folder, seed=0)
        )

    return provoke


def started(folder: Path, spec: ModelSpec = SPEC, expected: Any = None, path: Path | None = None) -> object:
    args = Namespace(
        pretrained=path or a_network(folder, spec=spec), expect_pretrained=expected, data=folder / "p", seed=0
    )
    images = replace(DIGITS, images=torch.zeros(6, 1, 2, 2, dtype=torch.uint8))
    return training.pretrained_model(args, "finetune", TrainingData(images, images), TASK)


def coded(folder: Path, expected: Any = None) -> object:
    args = of_measurement(folder, codes=code_file(folder), expect_model=expected)
    sidecar = {"rule": "bp", "seed": 0, "spec": {"backbone": "mlp"}, "population": "a variant"}
    return retrieval.read_codes(args, sidecar, {"model": "a" if expected else "b"})


OTHER = {"rule": "fa"}
#: What a sidecar has that says what a network is.
FILED = {"identity": {"rule": "bp", "experiment": "e"}}

STAGES: dict[str, Promised] = {
    "stages.attacking.parse_attack_options": (
        UserError,
        [(asked("--attack", "pgdd", "--help-settings"), "did you mean 'pgd'")],
    ),
    "stages.attacking.attack_settings": (
        UserError,
        [
            (lambda f: attacking.attack_settings(attack_options(settings={"step": 1}), "attack", True), "'steps'"),
            (lambda f: attacking.attack_settings(attack_options(gradient="none"), "attack", True), "use exact, own"),
        ],
    ),
    "stages.attacking.check_gradient": (
        UserError,
        [
            (lambda f: attacking.check_gradient("pgd", True, False, "none"), "does not fit the attack pgd; use exact"),
            (lambda f: attacking.check_gradient("square", False, False, "exact"), "use none"),
            (lambda f: attacking.check_gradient("transfer", False, True, "exact"), "use surrogate:twin"),
        ],
    ),
    "stages.attacking.attacker_view": (
        UserError,
        [
            (viewed("through:usff"), "did you mean 'usf'"),
            (viewed("through:usf:2"), "draws no random numbers; use through:usf"),
            (viewed("own"), "use exact or feedback"),
            (viewed("feedback", given_network=True), "which no rule has trained; use own or exact"),
        ],
    ),
    "stages.attacking.helpers": (
        UserError,
        [
            (helped("surrogate:twin", ("twin", SPEC), ("twin", SPEC)), "give each surrogate once"),
            (helped("surrogate:twin", ("other_seed", SPEC)), "needs --surrogate twin=<model>"),
            (helped("surrogate:twin", ("twin", replace(SPEC, n_classes=3))), "takes other images or classes"),
            (
                helped("surrogate:twin", ("twin", SPEC), expect_surrogate=[("twin", OTHER)]),
                "the model of rule fa is expected",
            ),
        ],
    ),
    "stages.command_line.frame_paths": (
        UserError,
        [(lambda f: command_line.frame_paths(Namespace(frame=None, records_list=written(f / "l", "\n"))), "names no")],
    ),
    "stages.given.checked_model": (
        UserError,
        [
            (taken_over("absent"), "absent"),
            (taken_over(input={"size": 9}), "cannot take images (1, 9, 9) in [0, 1]"),
            (taken_over("pair"), "not a tensor of logits"),
            (taken_over("wide"), "gives 7 numbers for each image, but the data has 2 classes"),
            (taken_over(input={"sizes": 9}), "'size'"),
            (taken_over("Counts"), "they depend on what it has seen before"),
            (taken_over("TellsTheJudge"), "computes something else inside torch.no_grad()"),
        ],
    ),
    "stages.identity.check_data": (
        UserError,
        [
            (lambda f: identity.check_data(Namespace(data=a_dataset(f), expect_data="digits")), "digits"),
            (lambda f: identity.check_data(Namespace(data=written(f / "x"), expect_data="digits")), "not a prepared"),
        ],
    ),
    "stages.identity.check_model": (
        UserError,
        [
            (lambda f: identity.check_model(a_network(f), OTHER), "the model of rule fa is expected"),
            (lambda f: identity.check_model(a_network(f, **FILED), OTHER), "where that of"),
            (lambda f: identity.check_model(a_network(f, **FILED), {"rule": "bp"}), "does not say how the model was"),
            (
                lambda f: identity.check_model(
                    a_network(f, settings={"data": "0"}, **FILED), {"rule": "bp"}, a_dataset(f)
                ),
                "was trained on other data",
            ),
        ],
    ),
    "stages.measuring.check_expected": (
        UserError,
        [
            (lambda f: measuring.check_expected(of_measurement(f, expect_data="digits")), "digits"),
            (
                lambda f: measuring.check_expected(of_measurement(f, expect_model=OTHER)),
                "the model of rule fa is expected",
            ),
        ],
    ),
    "stages.measuring.loaded": (
        UserError,
        [
            (lambda f: loaded(f, model=f / "absent.safetensors"), "absent"),
            (lambda f: loaded(f, data=written(f / "x")), "not a prepared dataset"),
            (lambda f: loaded(f, classes=[0]), "check --data, --classes and --input"),
            (lambda f: loaded(f, input={"size": 4}), "check --data, --classes and --input"),
            (lambda f: loaded(f, model=a_given_network(f), classes=[0]), "has 1 classes"),
        ],
    ),
    "stages.finetuning.training_settings": (
        UserError,
        [
            (
                lambda f: finetuning.training_settings(of_finetuning(f, scale="norms"), "finetune"),
                "did you mean 'norm'",
            ),
            (lambda f: finetuning.training_settings(of_finetuning(f), "finetune"), "use head: fresh"),
            (lambda f: finetuning.training_settings(of_finetuning(f, batch_norm="frozen"), "finetune"), "leave it out"),
            (lambda f: finetuning.training_settings(of_finetuning(f), "pretrain"), "unknown key 'head'"),
        ],
    ),
    "stages.finetuning.keep_head": (
        UserError,
        [
            (head_of, "was trained on other images or classes"),
            (lambda f: head_of(f, settings={"data": "0" * 64, "classes": None}), "was trained on other images"),
        ],
    ),
    "stages.measuring.decay_check": (
        UserError,
        [
            (lambda f: measuring.decay_check({"below_decay": 3}), "train the model again"),
            (lambda f: measuring.decay_check({"below_decay": [{"layer": "a"}]}), "train the model again"),
        ],
    ),
    "stages.measuring.history_metrics": (
        UserError,
        [
            (lambda f: measuring.history_metrics({"history": [{"loss": 1.0}]}, 9), "train the model again"),
            (lambda f: measuring.history_metrics({"history": 3}, 9), "train the model again"),
            (lambda f: measuring.history_metrics({"history": [{"epoch": 1, "loss": "x"}]}, 9), "train the model again"),
        ],
    ),
    "stages.populations.train_population_stage": (
        UserError,
        [
            (lambda f: a_population(f, validation_images=4), "validation_images"),
            (lambda f: a_population(f, "--rule", "pepit"), "did you mean 'pepita'"),
            (lambda f: a_population(f, "--input", '{"size": 9}'), "size"),
            (lambda f: a_population(f, epochz=3), "'epochs'"),
            (lambda f: a_population(f, "--expect-data", "digits"), "digits"),
        ],
    ),
    "stages.retrieval.retrieval_model": (
        UserError,
        [
            (
                lambda f: retrieval.retrieval_model(of_measurement(f, expect_model=OTHER), CPU),
                "the model of rule fa is expected",
            ),
            (lambda f: retrieval.retrieval_model(of_measurement(f, retrieval={"bitz": 8}), CPU), "'bits'"),
            (lambda f: retrieval.retrieval_model(of_measurement(f), CPU), "9"),
            (
                lambda f: retrieval.retrieval_model(
                    of_measurement(f, retrieval=RETRIEVAL | {"protocol": {"kind": "random", "query": 1, "train": 2}}),
                    CPU,
                ),
                "check --data, --input and --retrieval",
            ),
            (
                lambda f: retrieval.retrieval_model(of_measurement(f, model=a_given_network(f)), CPU),
                "name a network that a stage trained",
            ),
        ],
    ),
    "stages.retrieval.read_codes": (
        UserError,
        [(coded, "encode"), (lambda f: coded(f, expected={"rule": "bp"}), "where that of")],
    ),
    "stages.settings_help.parse_or_show_settings": (UserError, [(shown, "did you mean 'digits'")]),
    "stages.training.input_settings": (
        UserError,
        [(lambda f: training.input_settings(Namespace(input={"sizes": 3})), "--input: ")],
    ),
    "stages.training.classification_data": (
        UserError,
        [
            (
                lambda f: training.classification_data(Namespace(input={}, data=written(f / "x"), classes=None), CPU),
                "is not a prepared dataset",
            ),
            (
                lambda f: training.classification_data(Namespace(input={}, data=a_dataset(f), classes=[7]), CPU),
                "7",
            ),
        ],
    ),
    "stages.training.new_model": (
        UserError,
        [
            (
                lambda f: training.new_model(
                    Namespace(backbone="lenet55", seed=0), "pretrain", TrainingData(DIGITS, DIGITS), TASK
                ),
                "did you mean 'lenet5'",
            )
        ],
    ),
    "stages.training.pretrained_model": (
        UserError,
        [
            (lambda f: started(f, path=written(f / "x.safetensors")), "x.json"),
            (lambda f: started(f, expected=OTHER), "the model of rule fa is expected"),
            (lambda f: started(f, spec=replace(SPEC, image_shape=(1, 3, 3))), "takes images (1, 3, 3)"),
            (lambda f: started(f, path=a_given_network(f)), "name a network that a stage trained"),
        ],
    ),
    "stages.training.stop_at": (
        UserError,
        [
            (stopping("bp_matched_fa", match=False), "give both or neither"),
            (stopping("bp"), "give both or neither"),
            (stopping("bp_matched_fa", rule="usf"), "where that of"),
            (stopping("bp_matched_fa", seed=1), "where that of"),
            (stopping("bp_matched_fa", dataset="q"), "where that of"),
            (stopping("bp_matched_fa", attack="pgd"), "where that of"),
        ],
    ),
    "stages.training.train_stage": (
        UserError,
        [
            (lambda f: trained(f, settings='{"epochz": 1}'), "'epochs'"),
            (lambda f: trained(f, rule="bpp"), "unknown rule 'bpp'"),
            (lambda f: trained(f, settings=TRAIN[:-1] + ', "train_images": 9}'), "9"),
            (trained_twice, "another process works on"),
        ],
    ),
}
