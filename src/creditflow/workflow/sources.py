"""Which files a table or figure is made from. It imports nothing heavy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from creditflow.core import plugins
from creditflow.core.errors import UserError, suggestion
from creditflow.core.files import visible_files
from creditflow.core.settings import parse
from creditflow.workflow import layout
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.outputs import path_of, record_paths

_PUBLISHED = "config/published"


def source_files(experiment: Experiment, results: Path, kind: str, name: str) -> list[Path]:
    """Returns the files that a table or figure of an experiment shows, in the order of the plugin's `source`.

    The source "gallery" stands for records: those of one model under one attack, one for each of its gradients. The
    source "outcomes" stands for the records of the attacks that the settings choose, and those of clean models. The
    source "populations" stands for the populations that the settings choose. All others are frames of the experiment,
    or published numbers.

    Args:
        experiment: the experiment that declares the table or figure.
        results: folder of results.
        kind: "table" or "figure".
        name: id of the table or figure.

    Raises:
        UserError: its settings choose published numbers, records or populations that do not exist.
    """
    where = f"experiment {experiment.name}: {kind}s.{name}"
    settings: Any = parse(plugins.settings_class(kind, name), experiment.keys[f"{kind}s"].get(name, {}), where)
    words = str(plugins.declared(kind, name, "source", "summary")).split()
    if words == ["gallery"]:
        return _gallery(experiment, results, settings, where)
    if words == ["outcomes"]:
        return _outcomes(experiment, results, settings, where)
    if words == ["populations"]:
        return _populations(experiment, results, settings, where)
    return [
        _published(kind, name, settings, where) if word == "published" else _frame(experiment, results, word)
        for word in words
    ]


def _frame(experiment: Experiment, results: Path, word: str) -> Path:
    places = {"records": layout.COLLECT, "summary": layout.SUMMARY, "audit": layout.AUDIT}
    return places[word].path(results, ".parquet", experiment=experiment.name)


def _published(kind: str, name: str, settings: Any, where: str) -> Path:
    """Returns the file of published numbers that the settings choose, or else the plugin itself."""
    folder = layout.in_clone(_PUBLISHED)
    chosen = settings.published or str(plugins.declared(kind, name, "published"))
    known = [path.stem for path in visible_files(folder, "*.csv")]
    if chosen not in known:
        raise UserError(f"{where}.published: unknown published numbers {chosen!r}{suggestion(chosen, known)}")
    return folder / f"{chosen}.csv"


def _populations(experiment: Experiment, results: Path, settings: Any, where: str) -> list[Path]:
    """Returns the populations that the settings choose: of variants, on a dataset, under one rule or all rules."""
    variants = list(settings.variants.values())
    if "population" not in experiment.keys or not variants:
        raise UserError(f"{where}.variants: name populations of this experiment, such as {{SAL: mlp_200}}")
    dataset = settings.dataset or experiment.datasets[0]
    chosen = [
        (variant, rule)
        for variant in variants
        for rule in _chosen_rules(experiment, dataset, variant, settings.rule, where)
    ]
    return [
        path_of(layout.TRAIN_POPULATION, experiment, results, (dataset, variant, rule, 0)).with_suffix(".safetensors")
        for variant, rule in dict.fromkeys(chosen)
    ]


def _chosen_rules(experiment: Experiment, dataset: str, variant: str, rule: str, where: str) -> list[str]:
    """Returns the rules of a variant's populations that are shown; `rule` is one of them, or "all"."""
    if variant not in experiment.networks:
        raise UserError(f"{where}.variants: unknown variant {variant!r}{suggestion(variant, experiment.networks)}")
    rules = experiment.rules_of(dataset, variant) if dataset in experiment.datasets else []
    chosen = rules if rule == "all" else [rule]
    if not chosen or not set(chosen) <= set(rules):
        raise UserError(f"{where}: {variant} has no population of rule {rule!r} on dataset {dataset!r}")
    return chosen


def _outcomes(experiment: Experiment, results: Path, settings: Any, where: str) -> list[Path]:
    """Returns the records of the attacks that the settings choose, and the clean ones of the same models."""
    if "retrieval" in experiment.keys:
        raise UserError(f"{where}: it shows attacks on classifiers; this experiment retrieves")
    attacks = settings.chosen_attacks(experiment.keys["attacks"])
    if not attacks:
        raise UserError(f"{where}: the experiment runs no attack that it can show; choose another, or take it away")
    chosen = {key: getattr(settings, key) for key in ("dataset", "backbone") if getattr(settings, key, None)}
    places = {path: layout.record_keys(path) or {} for path in record_paths(experiment, results)}
    places = {path: keys for path, keys in places.items() if chosen.items() <= keys.items()}
    attacked = {_model(keys) for keys in places.values() if keys.get("attack") in attacks}
    if not attacked:
        known = "; ".join(f"{key}s: {', '.join(names)}" for key, names in _networks(experiment).items())
        raise UserError(f"{where}: {' and '.join(attacks)} attacks no such network; the experiment has {known}")
    return [
        path
        for path, keys in places.items()
        if keys.get("attack") in attacks or (keys.get("attack") == "clean" and _model(keys) in attacked)
    ]


def _networks(experiment: Experiment) -> dict[str, list[str]]:
    return {"dataset": experiment.datasets, "backbone": experiment.networks}


def _model(keys: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(keys.get(key) for key in ("dataset", "backbone", "rule", "seed"))


def _gallery(experiment: Experiment, results: Path, settings: Any, where: str) -> list[Path]:
    """Returns the records of one model under one attack; without settings, frSF and the first of everything else."""
    if "retrieval" not in experiment.keys:
        raise UserError(f"{where}: it shows what retrieval finds; this experiment has none")
    dataset = _choice(where, "dataset", settings.dataset, experiment.datasets)
    network = _choice(where, "backbone", settings.backbone, experiment.networks)
    rule = _choice(where, "rule", settings.rule, experiment.keys["rules"], usual="frsf")
    attack = _choice(where, "attack", settings.attack, list(experiment.keys["attacks"]))
    chain = (dataset, network, rule, experiment.keys["seeds"][0])
    gradients = [
        gradient for name, gradient in experiment.conditions(dataset, rule, chain[3], network) if name == attack
    ]
    if not gradients:
        raise UserError(f"{where}: {attack} does not attack {rule} on {dataset} with seed {chain[3]}")
    return [
        path_of(layout.ATTACK_RETRIEVAL, experiment, results, chain, attack=attack, gradient=gradient).with_suffix(
            ".json"
        )
        for gradient in gradients
    ]


def _choice(where: str, key: str, chosen: str | None, known: list[str], usual: str = "") -> str:
    """Returns what the settings choose among the known names, or else the usual name, or else the first."""
    name = chosen or (usual if usual in known else known[0])
    if name not in known:
        raise UserError(f"{where}.{key}: unknown {key} {name!r}{suggestion(name, known)}")
    return name
