"""What the wildcards of the rules may stand for. It imports nothing heavy."""

import re
from collections.abc import Iterable, Mapping

from creditflow.core import plugins
from creditflow.core.given import GIVEN_MODELS
from creditflow.core.gradients import SURROGATES
from creditflow.core.matched import HEAD_ONLY, matched_name
from creditflow.data.image_folders import source_id
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.given_models import given


def constraints(experiments: Mapping[str, Experiment]) -> dict[str, str]:
    """Returns a regular expression for each wildcard, from the plugins and from what the experiments name."""
    names = plugins.names
    views = {view for experiment in experiments.values() for view in experiment.keys["datasets"]}
    populations = [experiment.keys.get("population", {}) for experiment in experiments.values()]
    variants = {variant for population in populations for variant in population.get("variants", {})}
    sources = {source_id(view) for each in experiments.values() for view in each.keys["datasets"].values()}
    models = {name for experiment in experiments.values() for name in given(experiment.keys)}
    controls = [HEAD_ONLY, *map(matched_name, names("rule"))]
    return {
        "experiment": _one_of(experiments),
        "source": _one_of({*names("dataset"), *sources}),
        "dataset": _one_of(views),
        "backbone": _one_of({*names("backbone"), *variants, GIVEN_MODELS}),
        "rule": _one_of({*names("rule"), *controls, *names("update_rule"), *models}),
        "attack": _one_of({*names("attack"), *names("hash_attack")}),
        "gradient": _gradient(names("rule")),
        "table": _one_of(names("table")),
        "figure": _one_of(names("figure")),
        "seed": "[0-9]+",
        "weights": "[A-Z0-9_]+",
    }


def _gradient(rules: Iterable[str]) -> str:
    """Returns a regular expression of the folders of gradients, such as `exact` and `through-frsf-2`."""
    surrogates = _one_of(f"surrogate-{name}" for name in SURROGATES)
    return f"exact|own|feedback|none|{surrogates}|through-(?:{_one_of(rules)})(?:-[0-9]+)?"


def _one_of(names: Iterable[str]) -> str:
    """Returns a regular expression that matches just these names, and nothing if there are none."""
    return "|".join(re.escape(name) for name in sorted(names)) or "(?!)"
