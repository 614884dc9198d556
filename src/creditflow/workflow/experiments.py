"""The experiment: what it trains, attacks and shows. Imports nothing heavy, for the workflow's sake."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from creditflow.core import plugins
from creditflow.core.errors import UserError, suggestion
from creditflow.core.merging import merged
from creditflow.workflow.consistency import attack_kind, input_of, networks, trained_datasets


@dataclass(frozen=True)
class Experiment:
    """A validated experiment: its name and its keys, as `ExperimentKeys` describes them."""

    name: str
    keys: Mapping[str, Any]

    @property
    def datasets(self) -> list[str]:
        """Views of datasets that models are measured on."""
        return trained_datasets(self.keys)

    @property
    def networks(self) -> list[str]:
        """What stands for the backbone in paths and records: backbones, or the variants of a population."""
        return networks(self.keys)

    def chains(self) -> Iterator[tuple[str, str, str, int]]:
        """Yields (dataset, backbone, rule, seed) of every model that is measured."""
        for dataset in self.datasets:
            for network in self.networks:
                for rule in self.rules_of(dataset, network):
                    for seed in self.seeds_of(network, rule):
                        yield dataset, network, rule, seed

    def rules_of(self, dataset: str, network: str) -> list[str]:
        """Returns the rules that train a network on a dataset."""
        rules: list[str] = self.keys["rules"]
        if "population" not in self.keys:
            return rules
        return [
            rule
            for rule in rules
            if rule in self.keys["population"]["variants"][network]["learning_rates"].get(dataset, {})
        ]

    def seeds_of(self, network: str, rule: str) -> list[int]:
        """Returns the seeds that a network is trained with by a rule."""
        seeds: list[int] = self.keys["seeds"]
        if "population" not in self.keys:
            return seeds
        variant = self.keys["population"]["variants"][network]
        of_rule: list[int] = variant.get("rule_seeds", {}).get(rule, variant.get("seeds", seeds))
        return of_rule

    def population(self, dataset: str, variant: str, rule: str) -> dict[str, Any]:
        """Returns the settings of a population's training.

        The variant's settings are merged over the common ones, then those of the dataset, then those of the rule.
        """
        section = self.keys["population"]
        settings = merged(section["settings"], section["variants"][variant].get("settings", {}))
        settings = merged(settings, settings.pop("datasets", {}).get(dataset, {}))
        return merged(settings, settings.pop("rules", {}).get(rule, {}))

    def input(self, backbone: str) -> dict[str, Any]:
        """Returns what a backbone sees of the images."""
        return input_of(self.keys, backbone)

    def training(self, dataset: str) -> dict[str, Any]:
        """Returns the settings of fine-tuning on a dataset."""
        finetune = self.keys["finetune"]
        common: dict[str, Any] = finetune["settings"]
        different: dict[str, Any] = finetune.get("overrides", {}).get(dataset, {})
        return common | different

    def retrieval(self, dataset: str) -> dict[str, Any] | None:
        """Returns what the stages are told of retrieval on a dataset; None where the task is classification."""
        if "retrieval" not in self.keys:
            return None
        common = dict(self.keys["retrieval"])
        protocols, tops = common.pop("protocols"), common.pop("tops", {})
        return common | {
            "protocol": protocols[dataset],
            "top": tops.get(dataset, common["top"]),
            "loss": common.get("loss", {}),
        }

    def conditions(self, dataset: str, rule: str, seed: int, network: str | None = None) -> Iterator[tuple[str, str]]:
        """Yields (attack, gradient) of every attack on a model; the gradient is "none" for attacks that use none.

        Without a network, those of attacks on any.
        """
        met = {"datasets": dataset, "rules": rule, "seeds": seed} | ({} if network is None else {"backbones": network})
        for attack, keys in self.keys["attacks"].items():
            if any(name not in keys.get(key, [name]) for key, name in met.items()):
                continue
            if plugins.declared(attack_kind(self.keys), attack, "uses_gradient"):
                yield from ((attack, gradient) for gradient in keys.get("gradients", self.keys["gradients"]))
            else:
                yield attack, "none"

    def surrogate(self, network: str, rule: str, seed: int) -> tuple[str, int]:
        """Returns (rule, seed) of the model that transfer attacks on a model are made with.

        It is the model's twin that backpropagation fine-tuned; for BP itself the BP model of the next seed, as a model
        is no surrogate of itself (it has to be, where an experiment has one seed only).
        """
        seeds = self.seeds_of(network, "bp")
        return "bp", seed if rule != "bp" else seeds[(seeds.index(seed) + 1) % len(seeds)]


class Experiments(Mapping[str, Experiment]):
    """The sound experiments of a folder by name, and what is wrong with the others."""

    def __init__(self, sound: Mapping[str, Experiment], broken: Mapping[str, str]) -> None:
        self._sound = dict(sound)
        self.broken = dict(broken)
        """By name, one line that says what is wrong with an experiment; it names file and key."""

    def __getitem__(self, name: str) -> Experiment:
        return self._sound[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sound)

    def __len__(self) -> int:
        return len(self._sound)

    def warnings(self) -> list[str]:
        """Returns one line for each broken experiment, for a workflow that goes on without it."""
        return [f"{mistake}; the other experiments are not affected" for mistake in self.broken.values()]


def find(experiments: Experiments, name: str, where: str = "") -> Experiment:
    """Returns an experiment. Raises UserError for a broken one, with its mistake, and for a name that is unknown,
    with the closest one."""
    if name in experiments.broken:
        raise UserError(experiments.broken[name])
    if name not in experiments:
        known = sorted([*experiments, *experiments.broken])
        raise UserError(f"{f'{where}: ' if where else ''}unknown experiment {name!r}{suggestion(name, known)}")
    return experiments[name]
