"""What a table is: rows of the summary, pivoted so that each rule is a column, the best marked as the paper does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from creditflow import files
from creditflow.errors import UserError
from creditflow.reporting.names import display, rule_order

Mark = Literal["best", "second", ""]


@dataclass(frozen=True)
class Table:
    """A table of accuracies.

    Attributes:
        settings: dataclass of its parameters.
        select: (summary, settings) -> the summary's rows that it shows.
        rows: the columns of the summary that name its rows; rules are the columns.
    """

    settings: type[Any]
    select: Callable[[pd.DataFrame, Any], pd.DataFrame]
    rows: Sequence[str]


@dataclass(frozen=True)
class _Cell:
    percent: str
    interval: str
    mark: Mark


def marks(values: Sequence[float]) -> list[Mark]:
    """Marks one row as the sign-symmetry paper's Table 1 does.

    A single highest value is best; two equally highest ones are both second; three or more: nothing is marked. Below
    a single highest value, a single second-highest is second; several: none of them is marked.
    """
    if not values:
        return []
    levels = sorted(set(values), reverse=True)
    highest, n_highest = levels[0], list(values).count(levels[0])
    if n_highest > 2:
        return [""] * len(values)
    if n_highest == 2:
        return ["second" if value == highest else "" for value in values]
    runner_up = levels[1] if len(levels) > 1 and list(values).count(levels[1]) == 1 else None
    return ["best" if value == highest else "second" if value == runner_up else "" for value in values]


def at_epsilon(summary: pd.DataFrame, attack: str, epsilon: float) -> pd.DataFrame:
    """Returns the rows of one attack at one epsilon. Raises UserError if it was not measured there."""
    rows = summary[(summary.attack == attack) & (summary.metric == "robust_accuracy")]
    chosen = rows[(rows.epsilon - epsilon).abs() < 1e-12]
    if chosen.empty:
        raise UserError(f"no record of attack {attack!r} at epsilon {epsilon}; it has {sorted(set(rows.epsilon))}")
    return chosen


@dataclass(frozen=True)
class EpsilonSettings:
    """epsilon: size of the perturbation at which accuracy is reported."""

    epsilon: float


def attack_table(attack: str) -> Table:
    """Returns the table of accuracies under one attack at one epsilon, a row per backbone and dataset."""

    def select(summary: pd.DataFrame, settings: EpsilonSettings) -> pd.DataFrame:
        return at_epsilon(summary, attack, settings.epsilon)

    return Table(settings=EpsilonSettings, select=select, rows=("backbone", "dataset", "epsilon"))


def white_box(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of FGSM and PGD at all epsilons: figure 2 and the table behind it."""
    return summary[summary.attack.isin(["fgsm", "pgd"]) & (summary.metric == "robust_accuracy")]


def write_table(table: Table, selected: pd.DataFrame, caption: str, stem: Path) -> None:
    """Writes `<stem>.csv` (long form, all digits), `.md`, `.tex` and `.html` (rules side by side, percent)."""
    if selected.empty:
        raise UserError(f"no record for table {stem.name}; check that the experiment makes what the table shows")
    index, rules, cells = _pivot(selected, table.rows)
    note = f"{caption} {footnote(selected)}"
    files.write_atomically(stem.with_suffix(".csv"), selected.to_csv(index=False, lineterminator="\n").encode())
    for suffix, render in (("md", _markdown), ("tex", _latex), ("html", _html)):
        files.write_atomically(stem.with_suffix(f".{suffix}"), render(index, [display(rule) for rule in rules], cells, note).encode())


def footnote(selected: pd.DataFrame) -> str:
    """Returns sample size, number of seeds and kind of interval of some rows of the summary."""

    def span(values: "pd.Series[Any]") -> str:
        low, high = values.min(), values.max()
        return f"{low}" if low == high else f"{low} to {high}"

    return f"n = {span(selected.n_images)} images x {span(selected.n_seeds)} seeds; intervals: {selected.interval.iloc[0]}."


def _pivot(selected: pd.DataFrame, rows: Sequence[str]) -> tuple[pd.DataFrame, list[str], list[list[_Cell]]]:
    rules = rule_order(set(selected.rule))
    groups = selected.groupby(list(rows), sort=False, dropna=False)
    index, cells = [], []
    for names, group in groups:
        index.append([_row_name(name) for name in names])
        by_rule = {str(row.rule): row for row in group.itertuples()}
        cells.append(_row_cells([by_rule.get(rule) for rule in rules]))
    return pd.DataFrame(index, columns=[display(row) for row in rows]), rules, cells


def _row_name(name: object) -> str:
    if isinstance(name, float):
        return "" if name != name else f"{name:g}"
    return display(str(name))


def _row_cells(entries: Sequence[Any]) -> list[_Cell]:
    # Marks go by what the reader sees: values that look equal are equal.
    shown = [None if entry is None else round(100 * entry.value, 1) for entry in entries]
    marked = iter(marks([value for value in shown if value is not None]))
    return [
        _Cell("-", "", "") if value is None else _Cell(f"{value:.1f}", f"({100 * entry.low:.1f} to {100 * entry.high:.1f})", next(marked))
        for value, entry in zip(shown, entries, strict=True)
    ]


def _frame(index: pd.DataFrame, rules: list[str], cells: list[list[_Cell]], style: Mapping[str, str]) -> pd.DataFrame:
    text = [[f"{style[cell.mark].format(cell.percent)} {cell.interval}".strip() for cell in row] for row in cells]
    return pd.concat([index, pd.DataFrame(text, columns=rules)], axis=1)


def _markdown(index: pd.DataFrame, rules: list[str], cells: list[list[_Cell]], note: str) -> str:
    frame = _frame(index, rules, cells, {"best": "**{}**", "second": "_{}_", "": "{}"})
    return f"{frame.to_markdown(index=False, disable_numparse=True)}\n\n{note}\n"


def _html(index: pd.DataFrame, rules: list[str], cells: list[list[_Cell]], note: str) -> str:
    frame = _frame(index, rules, cells, {"best": "<b>{}</b>", "second": "<u>{}</u>", "": "{}"})
    style = (
        "body{font:13px sans-serif;margin:2em;color:#222}table{border-collapse:collapse}p{max-width:60em}"
        "th,td{padding:.3em .6em;border-bottom:1px solid #ccc;text-align:left;white-space:nowrap}thead{border-bottom:2px solid #222}"
    )
    table = frame.to_html(index=False, escape=False, border=0)
    return f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><style>{style}</style>{table}<p>{note}</p></html>\n'


def _latex(index: pd.DataFrame, rules: list[str], cells: list[list[_Cell]], note: str) -> str:
    safe = index.map(_escape_latex).rename(columns=_escape_latex)
    style = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}
    frame = _frame(safe, [_escape_latex(rule) for rule in rules], cells, style)
    latex: str = frame.to_latex(index=False, escape=False, caption=_escape_latex(note), position="t")
    return latex


def _escape_latex(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text
