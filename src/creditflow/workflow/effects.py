"""What an experiment says has an effect: every name stands for some model, and every key changes something."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from creditflow.attacks.epsilons import check_norm
from creditflow.core import plugins
from creditflow.core.effects import check_effects
from creditflow.core.errors import UserError
from creditflow.core.settings import SettingsModel, parse
from creditflow.data.settings import InputSettings
from creditflow.populations.settings import PopulationSettings
from creditflow.retrieval.settings import HyP2Settings
from creditflow.workflow.consistency import attack_kind
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.given_models import given

Chain = tuple[str, str, str, int]

#: Where a model's dataset, network, rule and seed stand in its chain, by the keys that restrict an attack.
_PLACES = {"datasets": 0, "backbones": 1, "rules": 2, "seeds": 3}


def check_all_effects(experiment: Experiment, stated: Mapping[str, Any], where: str) -> None:
    """Checks an experiment that is sound otherwise. Raises UserError that begins with `where`.

    `stated` are the keys of the experiment's own file. Sections that list things by name may take more from the
    experiment that is extended than this one uses.
    """
    chains = list(experiment.chains())
    _check_models(experiment, chains, where)
    _check_stated(experiment, stated, where)
    for attack in experiment.keys["attacks"]:
        _check_attack(experiment, attack, chains, f"{where}: attacks.{attack}")
    _check_gradients(experiment.keys, where)
    check_effects(_inputs(experiment), f"{where}: input")
    if "population" in experiment.keys:
        _check_variants(experiment, where)
        _check_populations(experiment, where)
    if "retrieval" in experiment.keys:
        _check_pairs(experiment, _at(stated, "retrieval.loss"), f"{where}: retrieval.loss")


def _check_models(experiment: Experiment, chains: Sequence[Chain], where: str) -> None:
    """Raises UserError for a dataset, rule or seed that no model has."""
    section = "population.datasets" if "population" in experiment.keys else "finetune.datasets"
    trained = {section: ("datasets", experiment.datasets), "rules": ("rules", experiment.keys["rules"])}
    listed = {} if given(experiment.keys) else trained
    if "nullspace" not in experiment.keys:  # it is measured with each seed
        listed["seeds"] = ("seeds", experiment.keys["seeds"])
    for place, (key, names) in listed.items():
        if unused := _without_model(names, key, chains):
            raise UserError(f"{where}: {place}: no model is trained for {unused[0]!r}; take it away")


def _without_model(names: Iterable[Any], key: str, chains: Iterable[Chain]) -> list[Any]:
    met = {chain[_PLACES[key]] for chain in chains}
    return [name for name in names if name not in met]


def _check_stated(experiment: Experiment, stated: Mapping[str, Any], where: str) -> None:
    """Raises UserError for an entry of the experiment's own file under a name that it does not use."""
    keys = experiment.keys
    pretrain = keys.get("pretrain", {})
    used = {
        "input.backbones": experiment.networks,
        "pretrain.files": experiment.networks,
        "finetune.overrides": experiment.datasets,
    }
    for section, names in used.items():
        for name, entry in _at(stated, section).items():
            if entry is not None and name not in names:
                raise UserError(f"{where}: {section}.{name} has no effect: nothing is trained with it; take it away")
    if "settings" in pretrain and "dataset" not in pretrain:
        raise UserError(f"{where}: pretrain.settings has no effect: they are for a `dataset`; take settings away")


def _at(keys: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Returns the mapping at a dotted path; an empty one where there is none."""
    place: Any = keys
    for key in path.split("."):
        place = place.get(key) if isinstance(place, Mapping) else None
    return place if isinstance(place, Mapping) else {}


def _check_attack(experiment: Experiment, attack: str, chains: Sequence[Chain], where: str) -> None:
    """Raises UserError for restrictions that leave no model, and for keys that an attack cannot use."""
    kind, chosen = attack_kind(experiment.keys), experiment.keys["attacks"][attack]
    limits = {key: chosen[key] for key in _PLACES if key in chosen}
    attacked = [chain for chain in chains if all(chain[_PLACES[key]] in names for key, names in limits.items())]
    for key, names in limits.items():
        if unmet := _without_model(names, key, attacked):
            raise UserError(f"{where}.{key}: no model that is attacked has {unmet[0]!r}; take it away")
    if "gradients" in chosen and not plugins.declared(kind, attack, "uses_gradient"):
        raise UserError(f"{where}.gradients has no effect: this attack uses no gradient; leave it out")
    for gradient in ("", *chosen.get("for_gradients", {})):
        try:
            check_norm(experiment.attack(attack, gradient)["epsilons"], plugins.declared(kind, attack, "norm"))
        except UserError as error:
            inside = f".for_gradients.{gradient}" if gradient else ""
            raise UserError(f"{where}{inside}.epsilons: {error}") from None


def _check_gradients(keys: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a gradient that no attack uses, where some attack uses any."""
    used = [
        gradient
        for attack, chosen in keys["attacks"].items()
        if plugins.declared(attack_kind(keys), attack, "uses_gradient")
        for gradient in chosen.get("gradients", keys["gradients"])
    ]
    if used and (unused := [gradient for gradient in keys["gradients"] if gradient not in used]):
        raise UserError(f"{where}: gradients: no attack uses {unused[0]!r}; take it away")


def _check_variants(experiment: Experiment, where: str) -> None:
    """Raises UserError for settings of a variant that are for a dataset or a rule with which it is not trained."""
    for name, variant in experiment.keys["population"]["variants"].items():
        place = f"{where}: population.variants.{name}"
        of_rules = {rule for rates in variant["learning_rates"].values() for rule in rates}
        settings: Mapping[str, Any] = variant.get("settings", {})
        for dataset, part in settings.get("datasets", {}).items():
            rates = variant["learning_rates"].get(dataset, {})
            _check_trained([dataset], variant["learning_rates"], f"{place}.settings.datasets")
            _check_trained(part.get("rules", {}), rates, f"{place}.settings.datasets.{dataset}.rules")
        _check_trained(settings.get("rules", {}), of_rules, f"{place}.settings.rules")
        _check_trained(variant.get("rule_seeds", {}), of_rules, f"{place}.rule_seeds")


def _check_trained(names: Iterable[str], trained: Iterable[str], place: str) -> None:
    for name in names:
        if name not in trained:
            raise UserError(f"{place}.{name} has no effect: there are no learning_rates for it; take it away")


def _inputs(experiment: Experiment) -> Iterator[InputSettings]:
    for network in experiment.networks:
        yield parse(InputSettings, experiment.input(network), "input")


def _check_populations(experiment: Experiment, where: str) -> None:
    """Checks the merged settings of all populations together, and those of each rule."""
    populations: list[PopulationSettings] = []
    of_rules: dict[str, list[SettingsModel]] = {}
    for dataset in experiment.datasets:
        for variant in experiment.networks:
            for rule in experiment.rules_of(dataset, variant):
                settings = parse(PopulationSettings, experiment.population(dataset, variant, rule), where)
                populations.append(settings)
                of_rule = parse(plugins.settings_class("update_rule", rule), settings.rule, where)
                of_rules.setdefault(rule, []).append(of_rule)
    check_effects(populations, f"{where}: population.settings")
    for rule, models in of_rules.items():
        check_effects(models, f"{where}: population.settings: rule {rule}")


def _check_pairs(experiment: Experiment, loss: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a weight of pairs where no image has two labels, which official pairs need."""
    variant = _at(experiment.keys, "retrieval.loss").get("variant", "official")
    changed = parse(HyP2Settings, loss, where).beta != HyP2Settings().beta
    sources = {experiment.keys["datasets"][name]["source"] for name in experiment.datasets}
    several = any(plugins.declared("dataset", source, "multi_label", False) for source in sources)
    if changed and variant == "official" and not several:
        raise UserError(f"{where}: beta has no effect: no image has two labels; leave it out, or say variant: h2q")
