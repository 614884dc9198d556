"""The page on which a report opens: the experiment, its verdicts in words, its first figure, and what comes next.

It is reStructuredText, as Snakemake's reports are.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd

from creditflow.reporting.measures import measure_of
from creditflow.reporting.names import condition_title, display
from creditflow.reporting.rules import by_rule_order

#: Letters of a line: docutils refuses lines of more than 10,000.
_LINE = 5_000

#: What the page needs wherever it is shown: Snakemake centres its text, cuts off the top of a long one, and puts the
#: graph of rules beside it. Here the text begins at the top, and the graph stands below it. The profiles name the style
#: of the whole report, rules/captions/report.css.
_STYLE = (
    ".h-screen.overflow-auto:has(.prose){align-items:flex-start}"
    ".items-start:has(>div>.prose){flex-direction:column;min-width:0}.prose{max-width:58rem}"
    ".prose h1{font-size:1.3em;margin:1.2em 0 .4em}.prose h1.title{font-size:1.9em}"
)

#: What becomes of a claim, in a sentence about several rules.
CLAIM_WORDS = {
    "masked": "more than half of the advantage that this attack shows is gone in the worst case",
    "partly masked": "a part of the advantage that this attack shows is gone in the worst case",
    "holds": "the advantage that this attack shows remains in the worst case",
    "no claim": "this attack shows no advantage that matters",
    "unresolved": "the numbers do not settle what becomes of the claim",
}

#: What the rest of the menu leads to.
_MENU = (
    "In the menu, Workflow shows the rules, and which files of a rule another one needs. Statistics shows when jobs"
    " ran, and how long they took. About names the packages in this page, with their licences."
)


def opening(
    name: str,
    description: str,
    audit: pd.DataFrame | None,
    figure: tuple[Path, str] | None,
    questions: Sequence[str],
    facts: Sequence[str],
) -> str:
    """Returns the page.

    Args:
        name: the experiment.
        description: what it does, in words.
        audit: the frame of the audit; None if the experiment has none.
        figure: the bitmap of its first figure, and its caption; None if there is none.
        questions: those of a reader that its tables and figures answer, as the menu has them.
        facts: sentences on how the results were made.
    """
    parts = [
        _heading(name, "="),
        f".. raw:: html\n\n   <style>{_STYLE}</style>",
        f"{_escaped(description.strip().rstrip('.'))}.",
        _heading("Verdicts", "-"),
    ]
    parts += verdicts(audit) if audit is not None else ["This experiment has no audit, so there is no verdict."]
    if figure is not None:
        path, caption = figure
        image = "\n   ".join(wrap(b64encode(path.read_bytes()).decode(), _LINE))
        style = "max-width:100%;height:auto;background:#fff"
        html = f'<img alt="{path.stem}" style="{style}" src="data:image/png;base64,{image}">'
        parts += [_heading("The first figure", "-"), f".. raw:: html\n\n   {html}", _escaped(caption)]
    parts += [_heading("What else is here", "-"), "The menu has the results in the order of these questions:"]
    parts += ["\n".join(map(_escaped, questions)), _MENU]
    parts += [_heading("How it was made", "-"), *map(_escaped, facts)]
    parts += ["Every number in the tables and figures comes from a record of a run in this workflow."]
    return "\n\n".join(parts) + "\n"


def verdicts(audit: pd.DataFrame) -> list[str]:
    """Returns the verdicts of an audit in words: a paragraph for each network and epsilon, and a list below it."""
    parts = []
    for place, rows in by_rule_order(audit).groupby(["dataset", "backbone", "epsilon"], sort=True):
        dataset, backbone, epsilon = place
        compared, references = rows[rows.net_effect != ""], rows[rows.net_effect == ""]
        parts.append(
            f"**{_escaped(display(str(backbone)))} on {_escaped(display(str(dataset)))}, epsilon {epsilon:g}.** "
            + " ".join(_reference(row, rows) for row in references.to_dict("records"))
        )
        lines = [_claims(str(word), of_word) for word, of_word in compared.groupby("claim_verdict", sort=False)]
        lines += [
            f"Net effect of {_rules(of_word)} in the worst case: *{word}*."
            for word, of_word in compared.groupby("net_effect", sort=False)
        ]
        parts.append("\n".join(f"* {line}" for line in lines))
    return parts


def _measure(rows: pd.DataFrame) -> str:
    return measure_of(rows).under_attack.removeprefix("robust ").removesuffix(" under attack")


def _reference(row: Mapping[Any, Any], rows: pd.DataFrame) -> str:
    worst = f"{100 * row['worst']:.0f}% in the worst case over all attacks"
    clean = f"{100 * row['clean']:.0f}% without an attack"
    return f"The {_measure(rows)} of {_escaped(display(row['rule']))}, the reference, is {clean}, and {worst}."


def _claims(word: str, rows: pd.DataFrame) -> str:
    """Returns a sentence on the rules whose claims have the same verdict."""
    prefix = measure_of(rows).prefix
    titles = list(dict.fromkeys(condition_title(str(row.claim), str(row.backbone)) for row in rows.itertuples()))
    claimed = [row[f"{prefix}{row['claim']}"] for row in rows.to_dict("records")]
    return (
        f"Claim of {_rules(rows)}: *{word}*. The {_measure(rows)} is {_span(claimed)} under"
        f" {_escaped(' or '.join(titles))}, and {_span(rows.worst)} in the worst case: {CLAIM_WORDS[word]}."
    )


def _rules(rows: pd.DataFrame) -> str:
    return _escaped(", ".join(display(rule) for rule in rows.rule))


def _span(shares: "Sequence[float] | pd.Series[float]") -> str:
    low, high = (f"{100 * end:.0f}" for end in (min(shares), max(shares)))
    return f"{low}%" if low == high else f"{low} to {high}%"


def _heading(text: str, line: str) -> str:
    escaped = _escaped(text)
    return f"{escaped}\n{line * len(escaped)}"


def _escaped(text: str) -> str:
    """Returns text in which nothing is markup."""
    for mark in "\\*`_|":
        text = text.replace(mark, f"\\{mark}")
    return text
