"""What the wildcards of the rules may stand for."""

import re

from creditflow.workflow.loading import load_experiments
from creditflow.workflow.wildcards import constraints
from helpers import ROOT

EXPERIMENTS = load_experiments(ROOT / "config/experiments")


def test_wildcards_stand_for_what_experiments_and_plugins_name() -> None:
    allowed = constraints(EXPERIMENTS)
    for experiment in EXPERIMENTS.values():
        assert re.fullmatch(allowed["experiment"], experiment.name)
        for dataset, network, rule, seed in experiment.chains():
            for name, value in {"dataset": dataset, "backbone": network, "rule": rule, "seed": str(seed)}.items():
                assert re.fullmatch(allowed[name], value), (name, value)
        for kind in ("attack", "table", "figure"):
            assert all(re.fullmatch(allowed[kind], name) for name in experiment.keys[f"{kind}s"])


def test_wildcards_stand_for_nothing_else() -> None:
    allowed = constraints(EXPERIMENTS)
    for name in ("experiment", "dataset", "backbone", "rule", "attack", "gradient", "table", "figure"):
        assert not re.fullmatch(allowed[name], "no/such")
        assert not re.fullmatch(allowed[name], "")
    assert not re.fullmatch(constraints({})["experiment"], "quick")
