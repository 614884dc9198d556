"""Answers that jobs share: they are those of a fresh call, for every job of an experiment."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from snakemake.iocontainers import Wildcards
from tests.helpers import ROOT

from creditflow.core.errors import UserError
from creditflow.core.gradients import folder_of
from creditflow.workflow import layout
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.once import once_for_all, once_per
from creditflow.workflow.yaml_files import read_mapping


def job(**wildcards: str) -> Wildcards:
    return Wildcards(fromdict=wildcards)


def test_jobs_that_agree_share_one_call() -> None:
    asked = []

    @once_per("experiment", "attack")
    def answer(wildcards: Wildcards) -> str:
        asked.append(dict(wildcards))
        return f"{wildcards.experiment} {wildcards.attack}"

    jobs = [job(experiment=e, attack=a, seed=s) for s in "01" for e in "xy" for a in "pq"]
    assert [answer(each) for each in jobs] == ["x p", "x q", "y p", "y q"] * 2
    assert len(asked) == 4
    # Snakemake gives a function whatever else its signature names, such as `input`.
    assert list(inspect.signature(answer).parameters) == ["wildcards"]


def test_only_the_named_wildcard_is_left_out() -> None:
    @once_for_all("seed")
    def answer(wildcards: Wildcards) -> object:
        return object()

    first = answer(job(rule="bp", seed="0", gradient="exact"))
    assert answer(job(rule="bp", seed="1", gradient="exact")) is first
    assert answer(job(rule="fa", seed="0", gradient="exact")) is not first
    assert answer(job(rule="exact", seed="0", gradient="bp")) is not first


def test_an_error_is_raised_again() -> None:
    asked = []

    @once_per("experiment")
    def refuse(wildcards: Wildcards) -> None:
        asked.append(wildcards.experiment)
        raise UserError("no")

    for _ in range(2):
        with pytest.raises(UserError, match="no"):
            refuse(job(experiment="x"))
    assert len(asked) == 2


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    """What the files of functions in `rules/` define; they are plain Python."""
    names: dict[str, Any] = {"layout": layout, "config": read_mapping(ROOT / "config/config.yaml")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for stem in ("common", "starting", "expected", "attacking"):
            exec(compile((ROOT / f"rules/{stem}.smk").read_text(encoding="utf-8"), f"{stem}.smk", "exec"), names)
    return names


def jobs_of(experiment: Experiment) -> Iterator[Wildcards]:
    """Yields the wildcards of all attacks of an experiment."""
    for dataset, network, rule, seed in experiment.chains():
        model = {"dataset": dataset, "backbone": network, "rule": rule, "seed": str(seed)}
        for attack, gradient in experiment.conditions(dataset, rule, seed, network):
            yield job(experiment=experiment.name, **model, attack=attack, gradient=folder_of(gradient))


@pytest.mark.parametrize(
    ("name", "stage", "kind", "unused"),
    [
        ("quick", "attack", "attack", set()),
        (
            "retrieval_fashion",
            "attack_retrieval",
            "hash_attack",
            {"transfers", "surrogate_models", "check_convergence"},
        ),
    ],
)
def test_shared_answers_are_those_of_fresh_calls(
    rules: dict[str, Any], name: str, stage: str, kind: str, unused: set[str]
) -> None:
    shared = {key: value for key, value in rules.items() if hasattr(value, "__wrapped__") and key not in unused}
    shared = {key: value for key, value in shared.items() if list(inspect.signature(value).parameters) == ["wildcards"]}
    shared |= {key: rules[key]("dataset") for key in ("prepared", "classes", "expected")}
    shared["library"] = rules["library"](stage, rule="{feedback_rule}", **{kind: "{attack}"})
    jobs = list(jobs_of(rules["EXPERIMENTS"][name]))
    answers = {key: [function(each) for each in jobs] for key, function in shared.items()}
    assert {"attack_settings", "expected_model", "inputs", "model_path", "prepared", "library"} <= answers.keys()
    for key, function in shared.items():
        assert answers[key] == [function.__wrapped__(each) for each in jobs], key
