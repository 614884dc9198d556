"""The page of an audit, `report.html`: one file with the verdict, the figure, the table, and how it was measured."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from matplotlib.figure import Figure

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Audit of adversarial robustness</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { border-bottom: 1px solid #ccc; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
.wide { overflow-x: auto; }
pre { background: #f5f5f5; padding: 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.8rem; }
svg { max-width: 100%; height: auto; }
</style>
</head>
<body>
<h1>Audit of adversarial robustness</h1>
<h2>Verdict</h2>
<ul>{% for text in verdicts %}<li>{{ text }}</li>{% endfor %}</ul>
<p>{{ limits | join(" ") }}</p>
<h2>Accuracy under each attack</h2>
{{ figure | safe }}
<h2>Table</h2>
<div class="wide">{{ table | safe }}</div>
<p>Accuracies are percentages, with 95% intervals in brackets. An image counts as fooled in the worst case if any attack
fools the model on it.</p>
<h2>Gradients</h2>
{% for name, text in reports.items() %}<h3>{{ name }}</h3><pre>{{ text }}</pre>{% endfor %}
<h2>How it was measured</h2>
<div class="wide">{{ attacks | safe }}</div>
<pre>{{ facts }}</pre>
</body>
</html>
"""


def page(
    verdicts: Sequence[str],
    limits: Sequence[str],
    reports: Mapping[str, str],
    figure: bytes,
    table: pd.DataFrame,
    attacks: pd.DataFrame,
    facts: Mapping[str, Any],
) -> str:
    """Returns the page as HTML. It loads nothing from elsewhere.

    Args:
        verdicts, limits: sentences.
        reports: the report on each model's gradient, as text.
        figure: the figure as an SVG file.
        table: what is shown of the results.
        attacks: a row for each attack that was run.
        facts: settings, versions and provenance.
    """
    environment = jinja2.Environment(autoescape=True)
    return environment.from_string(_TEMPLATE).render(
        verdicts=verdicts,
        limits=limits,
        reports=reports,
        figure=_inline(figure),
        table=table.to_html(index=False, border=0),
        attacks=attacks.to_html(index=False, border=0),
        facts=json.dumps(facts, indent=1, sort_keys=True),
    )


def _inline(figure: bytes) -> str:
    """Returns an SVG file as an element of HTML, without the head of an XML file."""
    text = figure.decode()
    return text[text.index("<svg") :]


def figure_bytes(figure: Figure, form: str) -> bytes:
    """Returns a figure as "png" or "svg"; equal numbers give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "creditflow"}):
        figure.savefig(buffer, format=form, metadata={"Date": None} if form == "svg" else {}, bbox_inches="tight")
    return buffer.getvalue()
