"""The verdict of an audit in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from creditflow.derivatives.report import GradientReport


def gradient_sentences(gradients: Mapping[str, GradientReport]) -> list[str]:
    """Returns a sentence or two for each model: what its gradient is worth, and what follows for its attacks."""
    return [_of_gradient(name, report) for name, report in gradients.items()]


def _of_gradient(name: str, report: GradientReport) -> str:
    if report.verdict == "honest":
        return f"The gradient of {name} is honest: its backward pass is the derivative of its forward pass."
    blamed = f" (layers to blame: {_listed(report.culprits)})" if report.culprits else ""
    if report.verdict == "surrogate":
        return (
            f"The gradient of {name} is a surrogate: its backward pass is not the derivative of its forward"
            f" pass{blamed}. An attack through it says little; the worst case follows the exact gradient."
        )
    return (
        f"{name} has no useful gradient{blamed}: {report.reason.rstrip('.')}. Its worst case rests on attacks"
        " through its own gradient, which are a heuristic, and on attacks that need no gradient. It is an upper bound"
        " only."
    )


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def verdict_sentences(table: pd.DataFrame, reference: str) -> list[str]:
    """Returns a text for each model at each epsilon: its worst case, its claim, and its net effect."""
    rows = table.to_dict("records")
    worst = {row["epsilon"]: row for row in rows if row["model"] == reference}
    alone = table.model.nunique() == 1
    return [
        _alone(row) if row["net_effect"] == "" else _compared(row, worst[row["epsilon"]], reference)
        for row in rows
        if alone or row["model"] != reference
    ]


def _alone(row: Mapping[Any, Any]) -> str:
    text = f"{_worst(row)}, and {_percent(row['clean'])}% without an attack."
    return text + (" The worst case is sound." if row["sound"] else f" The worst case is not sound: {row['reason']}.")


def _compared(row: Mapping[Any, Any], other: Mapping[Any, Any], reference: str) -> str:
    points = 100 * row["claim_difference"]
    side = "ahead of" if points >= 0 else "behind"
    ahead = f"Under {_attack(row['claim'])}, {row['model']} is {abs(points):.1f} points {side} {reference}."
    parts = {
        "no claim": "There is no claim of robustness.",
        "masked": "This claim of robustness is masked: most of the advantage is lost in the worst case.",
        "partly masked": "This claim of robustness is partly masked.",
        "holds": "This claim of robustness holds in the worst case.",
        "unresolved": "What becomes of this claim of robustness is unresolved.",
    }
    difference = f"{100 * row['difference']:+.1f} points ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    net = f"Net effect: {row['net_effect']}; the difference in the worst case is {difference}."
    reason = f" Why unresolved: {row['reason']}." if row["reason"] else ""
    worst = f"{_worst(row)}. For {reference} it is {_percent(other['worst'])}%."
    return f"{worst} {ahead} {parts[row['claim_verdict']]} {net}{reason}"


def _worst(row: Mapping[Any, Any]) -> str:
    interval = f"{_percent(row['worst_low'])} to {_percent(row['worst_high'])}"
    accuracy = f"accuracy in the worst case is {_percent(row['worst'])}% ({interval})"
    return f"{row['model']} at epsilon {row['epsilon']:.4g}: {accuracy}"


def _attack(claim: str) -> str:
    attack, _, gradient = claim.partition(" ")
    return f"{attack.upper()} through its {gradient} gradient"


def limits(table: pd.DataFrame, has_sources: bool, margin: float) -> list[str]:
    """Returns what the words do not say: for whom they hold, and what was not run."""
    texts = []
    if (table.scope != "any seed").any():
        texts.append(
            "With fewer than three networks of a model, words speak of these networks only, not of other seeds."
        )
    if not has_sources:
        texts.append(
            "No images were transferred, as there is no other model to take them from; give one in surrogates."
        )
    if table.model.nunique() > 1:
        texts.append(f"A difference below {margin:g} points is taken as too small to matter.")
    return [*texts, "Words speak of the attacks that were run, at their budget."]


def short_table(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table for people: percentages and words, a row for each model and epsilon."""
    accuracies = [str(name) for name in table.columns if str(name).startswith("accuracy ")]
    rows = []
    for row in table.to_dict("records"):
        interval = f"{_percent(row['worst'])} ({_percent(row['worst_low'])} to {_percent(row['worst_high'])})"
        cells = {"epsilon": f"{row['epsilon']:.4g}", "model": row["model"], "gradient": row["gradient"]}
        cells |= {"clean %": _percent(row["clean"])}
        for name in accuracies:
            value = row[name]
            cells[f"{name.removeprefix('accuracy ')} %"] = "" if pd.isna(value) else _percent(value)
        cells |= {"worst case %": interval, "claim": row["claim_verdict"], "net effect": row["net_effect"]}
        rows.append(cells | {"sound": "yes" if row["sound"] else "no"})
    frame = pd.DataFrame(rows)
    return frame if table.model.nunique() > 1 else frame.drop(columns=["claim", "net effect"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
