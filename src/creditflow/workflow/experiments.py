"""The experiment: what it trains, attacks and shows. Imports nothing heavy, for the workflow's sake."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from creditflow.core import plugins
from creditflow.core.errors import UserError, suggestion
from creditflow.core.gradients import SURROGATES, parse_gradient
from creditflow.core.matched import controls_of, is_control, trained_by
from creditflow.core.merging import merged
from creditflow.workflow.consistency import attack_kind, input_of, networks, rule_kind, trained_datasets
from creditflow.workflow.given_models import given, reference_of, seeds_of

#: A model that is measured: dataset, network (a backbone or a population's variant), rule or given model, and seed.
Chain = tuple[str, str, str, int]


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

    @property
    def reference(self) -> str | None:
        """The rule, or the given model, whose networks images are transferred from; None where there is none."""
        return reference_of(self.keys)

    def chains(self) -> Iterator[Chain]:
        """Yields (dataset, backbone, rule, seed) of every model that is measured."""
        for dataset in self.datasets:
            for network in self.networks:
                for rule in self.rules_of(dataset, network):
                    for seed in self.seeds_of(network, rule):
                        yield dataset, network, rule, seed

    def rules_of(self, dataset: str, network: str) -> list[str]:
        """Returns the rules that train a network on a dataset, and the controls that are asked for.

        Where models are given, these are their names.
        """
        rules: list[str] = self.keys["rules"]
        if given(self.keys):
            return rules
        if "population" not in self.keys:
            return rules + controls_of(self.keys)
        return [
            rule
            for rule in rules
            if rule in self.keys["population"]["variants"][network]["learning_rates"].get(dataset, {})
        ]

    def seeds_of(self, network: str, rule: str) -> list[int]:
        """Returns the seeds that a network is trained with by a rule, or those of a given model."""
        seeds: list[int] = self.keys["seeds"]
        if given(self.keys):
            return seeds_of(self.keys, rule)
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

    def size(self, backbone: str) -> int:
        """Returns the height and width of what reaches a backbone with published weights, in pixels."""
        seen = self.input(backbone)
        size: int = seen.get("upsample", seen.get("size", 224))
        return size

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

        Without a network, those of attacks on any. An attack whose images are made on another model is made on each
        surrogate. A rule whose feedback is exact, which is backpropagation, is not attacked through `feedback`.
        """
        met = {"datasets": dataset, "rules": rule, "seeds": seed} | ({} if network is None else {"backbones": network})
        for attack, keys in self.keys["attacks"].items():
            if all(name in keys.get(key, [name]) for key, name in met.items()):
                yield from ((attack, gradient) for gradient in self.gradients_of(attack, rule))

    def gradients_of(self, attack: str, rule: str) -> list[str]:
        """Returns the gradients through which an attack is made on the models of a rule."""
        kind = attack_kind(self.keys)
        if plugins.declared(kind, attack, "uses_gradient"):
            chosen: list[str] = self.keys["attacks"][attack].get("gradients", self.keys["gradients"])
            return self._without_feedback_of_exact_rules(chosen, rule)
        if plugins.declared(kind, attack, "uses_surrogate", False):
            return [f"surrogate:{name}" for name in self._surrogate_names()]
        return ["none"]

    def _surrogate_names(self) -> Sequence[str]:
        """Returns what surrogates every model is attacked from: a given reference may have one seed alone."""
        reference = self.reference
        alone = bool(given(self.keys)) and reference is not None and len(seeds_of(self.keys, reference)) == 1
        return SURROGATES[:1] if alone else SURROGATES

    def _without_feedback_of_exact_rules(self, gradients: list[str], rule: str) -> list[str]:
        if given(self.keys):
            return gradients
        exact = plugins.declared(rule_kind(self.keys), trained_by(rule), "exact", False)
        return [gradient for gradient in gradients if gradient != "feedback" or not exact]

    def why_gradients(self, rule: str, seed: int) -> list[str]:
        """Returns the gradients that are measured on a model, to say why attacks through them fail."""
        why = self.keys.get("why", {})
        if not why or rule not in why.get("rules", [rule]) or seed not in why.get("seeds", [seed]):
            return []
        return self._without_feedback_of_exact_rules(why["gradients"], rule)

    def attack(self, attack: str, gradient: str) -> dict[str, Any]:
        """Returns the keys of an attack through a gradient, with what its `for_gradients` says of that gradient."""
        keys = dict(self.keys["attacks"][attack])
        different = keys.pop("for_gradients", {})
        group = [parse_gradient(gradient).kind] if gradient.startswith("through:") else []
        for name in (*group, gradient):
            keys = merged(keys, different.get(name, {}))
        return keys

    def surrogates(self, chain: Chain, attack: str) -> dict[str, Chain]:
        """Returns the models that images for a model are made on, by their names.

        `twin` is the model of the same seed, and so of the same start, that backpropagation trained; for
        backpropagation itself, the one of another rule. `other_seed` is backpropagation's model of the next of its
        seeds. So every model is attacked from as many surrogates as any other, and from none that is itself.

        Among given models the reference stands in backpropagation's place. If it has one seed alone, there is no
        `other_seed`.

        Raises UserError if there is no such model.
        """
        dataset, network, rule, seed = chain
        reference = self.reference
        assert reference is not None  # attack_consistency has looked
        seeds = self.seeds_of(network, reference)
        if seed not in seeds:
            raise UserError(f"transfers from {reference}, which has no model of seed {seed}; give it this seed, too")
        if rule != reference:
            twin = (dataset, network, reference, seed)
        else:
            twin = (dataset, network, *self._twin_of_reference(dataset, network, seed, attack))
        other_seed = (dataset, network, reference, seeds[(seeds.index(seed) + 1) % len(seeds)])
        chains = {"twin": twin, "other_seed": other_seed}
        return {name: chains[name] for name in self._surrogate_names()}

    def _twin_of_reference(self, dataset: str, network: str, seed: int, attack: str) -> tuple[str, int]:
        """Returns rule and seed of the model that the reference is attacked from. Raises UserError if there is none.

        A given model has no start in common with the reference, so that its first seed does as well as the same one.
        """
        reference, models = self.reference, bool(given(self.keys))
        rules = [rule for rule in self.rules_of(dataset, network) if rule != reference and not is_control(rule)]
        others = [rule for rule in rules if models or seed in self.seeds_of(network, rule)]
        chosen = str(self.keys["attacks"][attack].get("twin", "frsf" if "frsf" in others else "".join(others[:1])))
        if chosen not in others:
            named = (
                f"{chosen} has no model" if chosen else f"no other {'model is given' if models else 'rule has a model'}"
            )
            whose = "another model" if models else "another rule's model"
            raise UserError(f"transfers to {reference} from {whose}, but {named} of seed {seed} on {dataset}")
        seeds = self.seeds_of(network, chosen)
        return chosen, seed if seed in seeds else seeds[0]


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
