"""Populations, attacks and target propagation of `gpu.py`."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import foolbox
import target_propagation
import torch
from _common import synchronised
from _gpu_run import Options, Send, measure
from torch import nn

import populations
from creditflow.attacks.judge import get_attack, run_attack
from creditflow.compute.device import use_device
from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.data.inputs import to_unit_interval
from creditflow.data.prepared import Subset
from creditflow.models.build import ModelSpec, build_model
from creditflow.populations.images import FlatImages
from creditflow.populations.population import Member
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.training import PopulationRun
from creditflow.stages.measuring import placed
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.loading import load_experiments

CONFIG = Path(__file__).resolve().parents[1] / "config/experiments"


def medians(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Returns the median of each; they take turns in each round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for index in range(rounds):
        for name in times if index % 2 else reversed(times):
            times[name].append(runs[name]())
    return {name: statistics.median(each) for name, each in times.items()}


class UsualLoop:
    """One network of torch.nn that learns the same task by backpropagation."""

    def __init__(self, data: FlatImages) -> None:
        device = data.pixels.device
        torch.manual_seed(0)
        layers = nn.Linear(784, 1024), nn.ReLU(), nn.Dropout(0.1), nn.Linear(1024, 10), nn.Softmax(1)
        self._net, self._data = nn.Sequential(*layers).to(device), data
        self._optimizer = torch.optim.SGD(self._net.parameters(), lr=0.01, momentum=0.9)

    def seconds(self) -> float:
        """Returns the seconds per step of one epoch."""
        data, device = self._data, self._data.pixels.device
        start, batches = synchronised(device), torch.randperm(len(data), device=device).split(populations.BATCH)
        for chosen in batches:
            targets = nn.functional.one_hot(data.labels[chosen], 10).float()
            outputs = self._net(data.pixels[chosen].float() / 255)
            loss = nn.functional.mse_loss(outputs, targets, reduction="sum") / len(chosen)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return (synchronised(device) - start) / len(batches)


class Together:
    """A population that trains at once."""

    def __init__(self, rule: str, n: int, data: FlatImages) -> None:
        values = {"epochs": 1_000_000, "batch_size": populations.BATCH, "hidden": [1024], "dropout": 0.1}
        values |= {"optimizer": {"momentum": 0.9}, "select": "last", "validation_images": 0}
        members = [Member(seed, 0.001) for seed in range(n)]
        self._n, self._data = n, data
        settings = parse(PopulationSettings, values, "settings")
        self._run = PopulationRun(get_update_rule(rule), members, data, data.part(torch.arange(1)), settings)

    def seconds(self) -> float:
        """Returns the seconds per network and step of one epoch."""
        device = self._data.pixels.device
        start = synchronised(device)
        self._run.epoch()
        return (synchronised(device) - start) / self._n / -(-len(self._data) // populations.BATCH)


def beside_the_loop(rule: str, n: int, data: FlatImages, options: Options) -> dict[str, Any]:
    """Returns the time of a network and step in a population of n, beside that of one network after the other."""
    runs = {"together": Together(rule, n, data).seconds, "loop": UsualLoop(data).seconds}
    if n > 1:
        runs["alone"] = Together(rule, 1, data).seconds
    times = medians(runs, options.rounds)
    alone = times.get("alone", times["together"])
    numbers = {"rule": rule, "networks": n, "microseconds": 1e6 * times["together"]}
    return numbers | {"over_alone": times["together"] / alone, "over_loop": times["together"] / times["loop"]}


def many_networks(options: Options, send: Send) -> None:
    """Measures populations of several sizes; the networks are 784-1024-10, the batches 64."""
    data = populations.images(use_device(options.device, options.threads))
    if options.small:
        data = data.part(torch.arange(2 * populations.BATCH))
    names, counts = (("bp",), (1, 3)) if options.small else (("bp", "dfa", "pepita"), (1, 10, 50, 200))
    plan = {f"{rule}, {n} networks": partial(beside_the_loop, rule, n, data, options) for rule in names for n in counts}
    measure(plan, send)


@dataclass(frozen=True)
class Target:
    """A network and the images that are attacked; the labels are what the network says, so that it is right."""

    network: str
    model: nn.Module
    data: Subset
    epsilons: tuple[float, ...] = (0.005, 0.02)


@cache
def target_of(network: str, n: int, device: torch.device) -> Target:
    shape = {"lenet5": (1, 28, 28), "small_cnn": (1, 28, 28), "resnet18": (3, 64, 64)}[network]
    generator, channels = torch.Generator().manual_seed(0), shape[0]
    images = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
    spec = ModelSpec(network, shape, 10, (0.3,) * channels, (0.3,) * channels)
    model = placed(build_model(spec, "benchmark", 0), device).eval()
    with torch.no_grad():
        labels = torch.cat([model(to_unit_interval(part.to(device))).argmax(1) for part in images.split(250)])
    statistics_of = (0.3,) * channels
    return Target(network, model, Subset(images, labels, tuple("0123456789"), statistics_of, statistics_of).to(device))


def ours(name: str, values: dict[str, Any], target: Target, batch: int) -> float:
    """Returns the seconds of our attack at all epsilons."""
    settings = parse(plugins.settings_class("attack", name), values, name)
    chosen, start = torch.arange(len(target.data.labels)), synchronised(target.data.device)
    run_attack(get_attack(name), settings, target.model, target.data, chosen, target.epsilons, batch_size=batch, seed=0)
    return synchronised(target.data.device) - start


FOOLBOX = {
    "fgsm": partial(foolbox.attacks.LinfFastGradientAttack, random_start=False),
    "pgd": partial(foolbox.attacks.LinfPGD, rel_stepsize=1 / 3, steps=5, random_start=False),
}


def theirs(name: str, target: Target, batch: int) -> float:
    """Returns the seconds of foolbox's own loop over epsilons, and of its clean accuracy, which ours measures too."""
    device = target.data.device
    start, model = synchronised(device), foolbox.PyTorchModel(target.model, bounds=(0, 1), device=device)
    for chosen in torch.arange(len(target.data.labels)).split(batch):
        images, labels = target.data.batch(chosen)
        foolbox.accuracy(model, images, labels)
        FOOLBOX[name]()(model, images, labels, epsilons=list(target.epsilons))
    return synchronised(device) - start


def attack_row(name: str, values: dict[str, Any], network: str, options: Options) -> dict[str, Any]:
    """Returns the time of an attack, and foolbox's divided by it where foolbox has the same attack."""
    n, batch = (8, 8) if options.small else (1000, 500)
    target = target_of(network, n, use_device(options.device, options.threads))
    runs = {"ours": partial(ours, name, values, target, batch)}
    if name in FOOLBOX:
        runs["theirs"] = partial(theirs, name, target, batch)
    times = medians(runs, options.rounds if name in FOOLBOX else 1)
    rate = n * len(target.epsilons) / times["ours"]
    numbers = {"network": network, "attack": name, "images": n, "seconds": times["ours"], "rate": rate}
    return numbers | {"foolbox_over_ours": times["theirs"] / times["ours"] if "theirs" in times else None}


def attacks(options: Options, send: Send) -> None:
    """Measures attacks on 1,000 images at two epsilons."""
    kinds: dict[str, dict[str, Any]] = {"fgsm": {}, "pgd": {}, "apgd_ce": {}, "square": {"queries": 200}}
    networks = ("lenet5", "resnet18")
    if options.small:
        kinds, networks = {"fgsm": {}, "pgd": {}, "apgd_ce": {"steps": 3}, "square": {"queries": 5}}, ("small_cnn",)
    plan = {
        f"{name} on {network}": partial(attack_row, name, values, network, options)
        for network in networks
        for name, values in kinds.items()
    }
    measure(plan, send)


@cache
def published() -> Experiment:
    """Returns the experiment on Fashion-MNIST; it is found among all, whose files take a while to read."""
    return load_experiments(CONFIG)["target_propagation_fashion"]


def epoch_row(rule: str, data: FlatImages, options: Options) -> dict[str, Any]:
    """Returns the seconds per epoch and network, alone and in a population."""
    experiment = published()
    full = 55_000 / len(data) / target_propagation.PART  # the module multiplies by PART itself
    n = 2 if options.small else 10
    runs = {
        name: partial(target_propagation.epoch, experiment, rule, members, data)
        for name, members in (("alone", 1), ("together", n))
    }
    times = {name: full * seconds for name, seconds in medians(runs, 1 if options.small else 2).items()}
    numbers = {"rule": rule, "alone_s": times["alone"], "members": n, "member_s": times["together"]}
    return numbers | {"member_over_alone": times["together"] / times["alone"]}


def targets(options: Options, send: Send) -> None:
    """Measures an epoch of target propagation as the experiment on Fashion-MNIST trains; a tenth of it is timed."""
    data = target_propagation.images(use_device(options.device, options.threads))
    data = data.part(torch.arange(128)) if options.small else data
    names = published().keys["rules"]
    names = names[:2] if options.small else names
    measure({f"{rule}": partial(epoch_row, rule, data, options) for rule in names}, send)
