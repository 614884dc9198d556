"""A finished table as Markdown, LaTeX and HTML; how each writes emphasis."""

import html
import re
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

#: Readable in a light and in a dark window, and on a narrow screen, where the table scrolls by itself.
_STYLE = (
    ":root{color-scheme:light dark}body{font:13px sans-serif;margin:1.5em;color:#222;background:#fff}"
    "div{overflow-x:auto}table{border-collapse:collapse}p{max-width:60em;line-height:1.45}"
    "th,td{padding:.3em .6em;border-bottom:1px solid #ccc;text-align:left;vertical-align:top;max-width:24em}"
    "th{vertical-align:bottom}thead{border-bottom:2px solid currentColor}td{min-width:2.5em}"
    "small{color:#595959;white-space:nowrap}"
    "@media(max-width:640px){table{width:max-content}td{max-width:14em}th{max-width:8em}}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#555}small{color:#aaa}}"
)

#: An interval in brackets at the end of a cell, which stands below its number on a page.
_INTERVAL = re.compile(r" \(([^()]* to [^()]*)\)$")


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
    stacked = frame.map(lambda text: _INTERVAL.sub(r"<br><small>\1</small>", text))
    table = stacked.to_html(index=False, escape=False, border=0)
    view = '<meta name="viewport" content="width=device-width">'
    head = f'<!DOCTYPE html><html lang="en"><meta charset="utf-8">{view}<style>{_STYLE}</style>'
    return f"{head}<div>{table}</div><p>{escape(note, 'html')}</p></html>\n"


def _latex(frame: pd.DataFrame, note: str) -> str:
    latex: str = frame.to_latex(index=False, escape=False, caption=escape(note, "tex"), position="t")
    return latex
