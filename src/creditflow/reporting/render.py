"""A finished table as Markdown, LaTeX and HTML; how each writes emphasis."""

import html
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from creditflow.core import files

#: How a cell's text is written, by mark and format.
EMPHASIS = {
    "md": {"best": "**{}**", "second": "_{}_", "": "{}"},
    "tex": {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"},
    "html": {"best": "<b>{}</b>", "second": "<u>{}</u>", "": "{}"},
}

_STYLE = (
    "body{font:13px sans-serif;margin:2em;color:#222}table{border-collapse:collapse}p{max-width:60em}"
    "th,td{padding:.3em .6em;border-bottom:1px solid #ccc;text-align:left;white-space:nowrap}"
    "thead{border-bottom:2px solid #222}"
)


def write_forms(frame: Callable[[str], pd.DataFrame], note: str, stem: Path) -> None:
    """Writes `<stem>.md`, `.tex` and `.html`; `frame(suffix)` gives the cells as that format writes them."""
    forms = {"md": _markdown, "tex": _latex, "html": _html}
    for suffix, render in forms.items():
        files.write_atomically(stem.with_suffix(f".{suffix}"), render(frame(suffix), note).encode())


def escape(text: str, suffix: str) -> str:
    """Returns text with what has a meaning in the format made harmless."""
    if suffix == "tex":
        for character in "&%$#_{}":
            text = text.replace(character, f"\\{character}")
    return html.escape(text) if suffix == "html" else text


def _markdown(frame: pd.DataFrame, note: str) -> str:
    return f"{frame.to_markdown(index=False, disable_numparse=True)}\n\n{note}\n"


def _html(frame: pd.DataFrame, note: str) -> str:
    table = frame.to_html(index=False, escape=False, border=0)
    head = f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><style>{_STYLE}</style>'
    return f"{head}{table}<p>{escape(note, 'html')}</p></html>\n"


def _latex(frame: pd.DataFrame, note: str) -> str:
    latex: str = frame.to_latex(index=False, escape=False, caption=escape(note, "tex"), position="t")
    return latex
