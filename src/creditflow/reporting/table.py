"""What a table is: rows of the summary, pivoted so that each rule is a column, the best marked as the paper does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.given import GIVEN_MODELS
from creditflow.reporting.names import display, display_of, span
from creditflow.reporting.render import EMPHASIS, escape, write_forms
from creditflow.reporting.rules import rule_order
from creditflow.reporting.tables.settings._epsilon import EpsilonSettings

Mark = Literal["best", "second", ""]


@dataclass(frozen=True)
class Table:
    """A table of accuracies with a column per rule. Its settings are those of `reporting/tables/settings`.

    Attributes:
        select: (summary, settings) -> the rows of the summary that it shows.
        rows: the columns of the summary whose values name a row of the table.
        source: the frame that it shows.
    """

    select: Callable[[pd.DataFrame, Any], pd.DataFrame]
    rows: Sequence[str]
    source: str = "summary"

    def write(self, frames: Sequence[pd.DataFrame], settings: Any, caption: str, stem: Path) -> None:
        """Writes `<stem>.csv` (long form, all digits), `.md`, `.tex` and `.html` (rules side by side, percent)."""
        (summary,) = frames
        selected = self.select(summary, settings)
        if selected.empty:
            raise UserError(f"no record for table {stem.name}; check that the experiment makes what the table shows")
        index, rules, cells = _pivot(selected, self.rows)
        numbers = selected.drop(columns="chance", errors="ignore")  # which the figures of the same rows show
        files.write_atomically(stem.with_suffix(".csv"), numbers.to_csv(index=False, lineterminator="\n").encode())

        def frame(suffix: str) -> pd.DataFrame:
            style, heads = EMPHASIS[suffix], [escape(display(rule), suffix) for rule in rules]
            text = [
                [f"{style[cell.mark].format(cell.percent)} {cell.interval}".strip() for cell in row] for row in cells
            ]
            names = index.map(lambda name: escape(name, suffix)).rename(columns=lambda name: escape(name, suffix))
            return pd.concat([names, pd.DataFrame(text, columns=heads)], axis=1)

        write_forms(frame, f"{caption} {footnote(selected)}", stem)


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
        known = f"it has {sorted(set(rows.epsilon))}" if len(rows) else "the experiment does not run it"
        message = f"no record of attack {attack!r} at epsilon {epsilon:g}; {known}"
        raise UserError(f"{message}: change the table's epsilon or `attacks`")
    return chosen


def attack_table(attack: str) -> Table:
    """Returns the table of accuracies under one attack at one epsilon, with a row per backbone and dataset.

    The settings of such a table are a subclass of `EpsilonSettings`, in `reporting/tables/settings/<table>.py`.
    """

    def select(summary: pd.DataFrame, settings: EpsilonSettings) -> pd.DataFrame:
        return at_epsilon(summary, attack, settings.epsilon)

    return Table(select=select, rows=("backbone", "dataset", "epsilon"))


def white_box(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of FGSM and PGD at all epsilons: figure 2 and the table behind it.

    Attackers use the exact gradient or the rule's own feedback weights; `gradient_matrix` shows fresh ones.
    """
    shown = summary.attack.isin(["fgsm", "pgd"]) & (summary.metric == "robust_accuracy")
    return without_fresh_feedback(summary[shown])


def hash_attacks(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of attacks on retrieval at all epsilons: figures 3 and 6 and the table behind them."""
    shown = (summary.task == "retrieval") & (summary.attack != "clean") & (summary.metric == "map")
    return without_fresh_feedback(summary[shown])


def without_fresh_feedback(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of attackers that use no feedback weights but the rule's own."""
    return summary[~summary.gradient.str.startswith("through:")]


def footnote(selected: pd.DataFrame) -> str:
    """Returns sample size, number of seeds and kind of interval of some rows of the summary."""
    sample = f"n = {span(selected.n_images)} images x {span(selected.n_seeds)} seeds"
    return f"{sample}; intervals: {selected.interval.iloc[0]}."


def _pivot(selected: pd.DataFrame, rows: Sequence[str]) -> tuple[pd.DataFrame, list[str], list[list[_Cell]]]:
    rules = rule_order(set(selected.rule))
    groups = selected.groupby(list(rows), sort=False, dropna=False)
    index, cells = [], []
    for names, group in groups:
        backbone = GIVEN_MODELS if GIVEN_MODELS in names else ""
        index.append([_row_name(name, backbone) for name in names])
        by_rule = {str(row.rule): row for row in group.itertuples()}
        cells.append(_row_cells([by_rule.get(rule) for rule in rules]))
    return pd.DataFrame(index, columns=[display(row) for row in rows]), rules, cells


def _row_name(name: object, backbone: str) -> str:
    if isinstance(name, float):
        return "" if name != name else f"{name:g}"
    return display_of(str(name), backbone)


def _row_cells(entries: Sequence[Any]) -> list[_Cell]:
    # Marks go by what the reader sees: values that look equal are equal.
    shown = [None if entry is None else round(100 * entry.value, 1) for entry in entries]
    marked = iter(marks([value for value in shown if value is not None]))
    return [
        _Cell("-", "", "")
        if value is None
        else _Cell(f"{value:.1f}", f"({100 * entry.low:.1f} to {100 * entry.high:.1f})", next(marked))
        for value, entry in zip(shown, entries, strict=True)
    ]
