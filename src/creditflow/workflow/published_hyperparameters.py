"""Published hyper-parameters: files of `config/hyperparameters`, whose rows variants of a population take over."""

import csv
import math
from collections.abc import Mapping, Sequence
from typing import Any

from creditflow.core.errors import UserError, one_line, suggestion
from creditflow.core.files import visible_files
from creditflow.core.merging import merged
from creditflow.workflow.layout import CLONE

#: Where the files lie, wherever Snakemake runs.
FOLDER = CLONE / "config/hyperparameters"

_OPTIMIZER = ("beta1", "beta2", "stability")
_FEEDBACK = ("feedback_learning_rate", "feedback_beta1", "feedback_beta2", "feedback_stability")

#: Rules that follow the gradient, or fixed feedback, and have nothing else to set.
_WITHOUT_FEEDBACK = ("bp", "dfa_targets")


def fill_in(keys: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns an experiment's keys with published hyper-parameters in the place of their names.

    Raises UserError as `with_published` does.
    """
    filled = {
        name: {"hyperparameters": None}
        | with_published(variant, keys["rules"], f"{where}: population.variants.{name}.hyperparameters")
        for name, variant in keys.get("population", {}).get("variants", {}).items()
        if "hyperparameters" in variant
    }
    return merged(keys, {"population": {"variants": filled}}) if filled else keys


def with_published(variant: Mapping[str, Any], rules: Sequence[str], where: str) -> dict[str, Any]:
    """Returns a variant with settings and learning rates in place of its `hyperparameters`.

    What the variant says itself counts more than the published values. Each entry of `hyperparameters` names a table
    of a file, and in it the rows whose dataset is `row`; they are used for the experiment's `dataset`.

    Raises UserError for a file or rows that are not there, and for a row in which something is missing or no number.
    """
    filled: dict[str, Any] = {"settings": {}, "learning_rates": {}}
    for chosen in variant["hyperparameters"]:
        of_rules, rates = _of_dataset(chosen, rules, where)
        filled = merged(
            filled,
            {
                "settings": {"datasets": {chosen["dataset"]: {"rules": of_rules}}},
                "learning_rates": {chosen["dataset"]: rates},
            },
        )
    return merged(filled, {key: value for key, value in variant.items() if key != "hyperparameters"})


def _of_dataset(
    chosen: Mapping[str, str], rules: Sequence[str], where: str
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Returns settings and learning rates by rule. A rate is the row's over its step size, as the authors' code
    divides it."""
    rows = _rows(chosen, where)
    of_rules: dict[str, Any] = {}
    rates: dict[str, list[float]] = {}
    for rule in rules:
        if rule in rows:
            place = f"{where}: {chosen['file']}.csv, {chosen['table']}, {chosen['row']}, {rule}"
            of_rules[rule], rates[rule] = _settings(rows[rule], rule, place)
    if not rates:
        raise UserError(f"{where}: no row for any of the rules {', '.join(rules)}; there are {', '.join(sorted(rows))}")
    return of_rules, rates


def _rows(chosen: Mapping[str, str], where: str) -> dict[str, dict[str, str]]:
    known = [path.stem for path in visible_files(FOLDER, "*.csv")]
    if chosen["file"] not in known:
        raise UserError(f"{where}.file: unknown hyper-parameters {chosen['file']!r}{suggestion(chosen['file'], known)}")
    path = FOLDER / f"{chosen['file']}.csv"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table of hyper-parameters ({one_line(error)}); get it again") from error
    if rows and (missing := [name for name in ("table", "dataset", "variant", "rule") if name not in rows[0]]):
        raise UserError(f"{path} has no column {', '.join(missing)}; get it again")
    for key, column in (("table", "table"), ("row", "dataset"), ("variant", "variant")):
        wanted = chosen.get(key, "")
        values = sorted({row[column] for row in rows})
        rows = [row for row in rows if row[column] == wanted]
        if not rows:
            raise UserError(f"{where}.{key}: no row with {column} {wanted!r}{suggestion(wanted, values)}")
    return {row["rule"]: row for row in rows}


def _settings(row: Mapping[str, str], rule: str, place: str) -> tuple[dict[str, Any], list[float]]:
    """Returns what a row says, as settings of a population and learning rates."""
    feedback = rule not in _WITHOUT_FEEDBACK

    def numbers(name: str) -> list[float]:
        return [_number(text, name, place) for text in row.get(name, "").split("|")]

    def number(name: str) -> float:
        return numbers(name)[0]

    if number("step_size") <= 0 or min(numbers("learning_rate")) <= 0:
        raise UserError(f"{place}: step_size and learning_rate must be above 0; mend the file")
    rates = [rate / number("step_size") for rate in numbers("learning_rate")]
    settings: dict[str, Any] = {"optimizer": {"kind": "adam"} | {name: number(name) for name in _OPTIMIZER}}
    if len(rates) > 1:
        stabilities = numbers("stability")
        if len(stabilities) != len(rates):
            raise UserError(f"{place}: {len(rates)} learning rates, but {len(stabilities)} stabilities")
        del settings["optimizer"]["stability"]  # each layer has its own
        settings["optimizer"] |= {"layer_rates": [rate / rates[0] for rate in rates], "layer_stabilities": stabilities}
    if feedback:
        rate, beta1, beta2, stability = (number(name) for name in _FEEDBACK)
        decay = number("feedback_weight_decay")
        settings["feedback_optimizer"] = {
            "kind": "adam",
            "beta1": beta1,
            "beta2": beta2,
            "stability": stability,
            "weight_decay": decay,
        }
        settings["feedback_learning_rate"] = rate
        settings["rule"] = {"step_size": number("step_size"), "sigma": number("sigma")}
        epochs = {name: int(number(name)) for name in ("feedback_epochs", "extra_feedback_epochs")}
        settings |= {name: value for name, value in epochs.items() if value}
        if rule == "ddtp_rhl":
            settings["rule"]["width"] = int(number("width"))
            if "recurrent" in row["variant"]:
                settings["rule"]["recurrent"] = True
    return settings, rates[:1]


def _number(text: str, name: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{place}: {name} is {'missing' if not text else repr(text) + ', no number'}; give it in the file"
        )
    return value
