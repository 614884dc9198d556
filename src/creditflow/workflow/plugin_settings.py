"""Checks the settings of plugins that an experiment uses, and settings that are merged from several sections,
before any job starts."""

from collections.abc import Mapping
from typing import Any

from creditflow.core import plugins
from creditflow.core.effects import check_effects
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.settings import PopulationSettings
from creditflow.training.settings import FinetuningSettings
from creditflow.workflow.consistency import attack_kind
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.given_models import given


def check_settings(experiment: Experiment, where: str) -> None:
    """Checks an experiment whose names are known to be right. Raises UserError, which begins with `where` and names
    the key."""
    keys = experiment.keys
    for attack, chosen in keys["attacks"].items():
        place = f"{where}: attacks.{attack}"
        _check_plugin(attack_kind(keys), attack, chosen.get("settings", {}), f"{place}.settings")
        for gradient in chosen.get("for_gradients", {}):
            settings = experiment.attack(attack, gradient).get("settings", {})
            _check_plugin(attack_kind(keys), attack, settings, f"{place}.for_gradients.{gradient}: settings")
    for kind in ("table", "figure"):
        for name, settings in keys[f"{kind}s"].items():
            _check_plugin(kind, name, settings, f"{where}: {kind}s.{name}")
    for name, settings in keys["figures"].items():
        _check_choice(experiment, name, settings, f"{where}: figures.{name}")
    for rule, settings in keys.get("nullspace", {}).items():
        _check_plugin("update_rule", rule, settings.get("rule", {}), f"{where}: nullspace.{rule}.rule")
    if "population" in keys:
        _check_populations(experiment, where)
        return
    for dataset in [] if given(keys) else experiment.datasets:
        place = f"{where}: finetune: settings for {dataset}"
        settings = parse(FinetuningSettings, experiment.training(dataset), place)
        if settings.head == "kept":
            _check_kept_head(keys, dataset, place)


def _check_kept_head(keys: Mapping[str, Any], dataset: str, place: str) -> None:
    """Raises UserError for a head that is to be kept, but is not that of a pretraining on the same images and classes.

    What another experiment has pretrained is looked at when it is used.
    """
    pretrain = keys["pretrain"]
    if "experiment" in pretrain or keys["datasets"].get(pretrain.get("dataset")) == keys["datasets"][dataset]:
        return
    raise UserError(
        f"{place}: head: kept is for a head that was pretrained on the same images and classes; pretrain on a `dataset`"
        f" with the source and classes of {dataset!r}, or use head: fresh"
    )


def _check_plugin(kind: str, name: str, settings: Mapping[str, Any], where: str) -> None:
    check_effects([parse(plugins.settings_class(kind, name), settings, where)], where)


def _check_choice(experiment: Experiment, name: str, settings: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a figure of one dataset and one network that has several to choose from.

    The figure itself would say so, but only when everything has been computed. Looked at are figures of one attack and
    of the angles of training. Which networks the others show is not known before.
    """
    model = plugins.settings_class("figure", name)
    if name != "figure1" and "attack" not in model.model_fields:
        return
    parsed = parse(model, settings, where)
    attack = experiment.keys["attacks"].get(getattr(parsed, "attack", ""), {})
    for field, section, known in (
        ("dataset", "datasets", experiment.datasets),
        ("backbone", "backbones", experiment.networks),
    ):
        choices = attack.get(section) or known
        if field in model.model_fields and getattr(parsed, field) is None and len(choices) > 1:
            raise UserError(f"{where}: {field} is missing; choose one of {', '.join(choices)}")


def _check_populations(experiment: Experiment, where: str) -> None:
    """Checks the merged settings of every population that is trained, and of its rule."""
    for dataset in experiment.datasets:
        for variant in experiment.networks:
            for rule in experiment.rules_of(dataset, variant):
                place = f"{where}: population.variants.{variant}: settings of {rule} on {dataset}"
                settings = parse(PopulationSettings, experiment.population(dataset, variant, rule), place)
                parse(plugins.settings_class("update_rule", rule), settings.rule, f"{place}: rule")
