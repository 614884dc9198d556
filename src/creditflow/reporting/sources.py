"""Which files a table or figure is made from. Imports nothing heavy, for the workflow's sake."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.workflow.experiments import Experiment

#: The published numbers of a table that does not choose.
DEFAULT_PUBLISHED = "sign_symmetry"

_PUBLISHED = Path("config/published")


def source_files(experiment: Experiment, results: Path, kind: str, name: str) -> list[Path]:
    """Returns the frames that an experiment's table or figure (`kind`) shows, in the order of its `source`.

    "gallery" stands for records: those of one model's attack, through each of its gradients; "populations" for those of the variants
    that the settings name.

    Raises UserError if its settings choose published numbers, records or populations that are not there.
    """
    settings = experiment.keys[f"{kind}s"].get(name, {})
    words = str(plugins.declared(kind, name, "source", "summary")).split()
    if words == ["gallery"]:
        return _gallery(experiment, results, settings, f"experiment {experiment.name}: {kind}s.{name}")
    if words == ["populations"]:
        return _populations(experiment, results, kind, settings, f"experiment {experiment.name}: {kind}s.{name}")
    frames = {word: results / experiment.name / f"{word}.parquet" for word in words}
    if "published" in frames:
        chosen = str(settings.get("published") or plugins.declared(kind, name, "published", DEFAULT_PUBLISHED))
        known = sorted(path.stem for path in _PUBLISHED.glob("*.csv"))
        if chosen not in known:
            where = f"experiment {experiment.name}: {kind}s.{name}.published"
            raise UserError(f"{where}: unknown published numbers {chosen!r}{plugins.suggestion(chosen, known)}")
        frames["published"] = _PUBLISHED / f"{chosen}.csv"
    return list(frames.values())


def _populations(
    experiment: Experiment, results: Path, kind: str, settings: Mapping[str, Any], where: str
) -> list[Path]:
    """Returns the populations of `variants`, {label: variant}, under `rule` ("all" for every one of them) on `dataset` or the first."""
    variants = list((settings.get("variants") or {}).values())
    if "population" not in experiment.keys or not variants:
        raise UserError(f"{where}.variants: name populations of this experiment, such as {{SAL: mlp_200}}")
    dataset, rule = (
        settings.get("dataset") or experiment.datasets[0],
        settings.get("rule", "sal" if kind == "figure" else "all"),
    )
    chosen = []
    for variant in variants:
        if variant not in experiment.networks:
            raise UserError(
                f"{where}.variants: unknown variant {variant!r}{plugins.suggestion(str(variant), experiment.networks)}"
            )
        rules = experiment.rules_of(dataset, variant) if dataset in experiment.datasets else []
        wanted = rules if rule == "all" else [rule]
        if not wanted or not set(wanted) <= set(rules):
            raise UserError(f"{where}: {variant} has no population of rule {rule!r} on dataset {dataset!r}")
        chosen += [(variant, one) for one in wanted]
    folder = results / experiment.name / "population" / dataset
    return [folder / variant / f"{one}.safetensors" for variant, one in dict.fromkeys(chosen)]


def _gallery(experiment: Experiment, results: Path, settings: Mapping[str, Any], where: str) -> list[Path]:
    """Returns the first seed's records under one attack: of the settings' choice, else of frSF and the first of all else."""
    keys = experiment.keys
    if "retrieval" not in keys:
        raise UserError(f"{where}: it shows what retrieval finds; this experiment has none")
    known = {
        "dataset": experiment.datasets,
        "backbone": experiment.networks,
        "rule": keys["rules"],
        "attack": list(keys["attacks"]),
    }
    usual = {"rule": "frsf"}
    chosen = {}
    for key, names in known.items():
        chosen[key] = settings.get(key) or (usual[key] if usual.get(key) in names else names[0])
        if chosen[key] not in names:
            raise UserError(
                f"{where}.{key}: unknown {key} {chosen[key]!r}{plugins.suggestion(str(chosen[key]), names)}"
            )
    model = Path(results / experiment.name, "attack_retrieval", chosen["dataset"], chosen["backbone"], chosen["rule"])
    seed = keys["seeds"][0]
    conditions = experiment.conditions(chosen["dataset"], chosen["rule"], seed, chosen["backbone"])
    found = [
        model / attack / gradient / f"seed{seed}.json" for attack, gradient in conditions if attack == chosen["attack"]
    ]
    if not found:
        raise UserError(
            f"{where}: {chosen['attack']} does not attack {chosen['rule']} on {chosen['dataset']} with seed {seed}"
        )
    return found
