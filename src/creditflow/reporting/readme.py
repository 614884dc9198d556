"""The numbers of README: a picture with its caption, and a table with a row a paper, from the page of results' claims.

In `claims.yaml`, a paper may have the key `readme`, an entry with

- `link`, the address of the paper, and `title`, its title;
- `claim`, what the paper claims, and `measured` and `verdict`, what was found, in one sentence each;
- `experiment` and `numbers`, which explain names in braces, as in a claim of the page;
- for the one paper whose figure README shows, `figure`: `name`, `text` (for those who cannot see it), `caption`, and
  `experiment`, if the figure is of another one.

README has the marks `<!-- numbers: figure -->` and `<!-- numbers: papers -->`, each with `<!-- end -->` after it. What
stands between is replaced.
"""

import os
import re
from pathlib import Path
from typing import Any

from creditflow.core.errors import UserError
from creditflow.reporting.results_page import (
    Read,
    check_keys,
    check_verdict,
    exported_figure,
    filled,
    read_papers,
    table_reader,
)

_KEYS = {"title", "link", "claim", "measured", "verdict", "experiment", "numbers"}


def with_numbers(text: str, readme: Path, folder: Path) -> str:
    """Returns the text of README with its generated parts made anew.

    Args:
        text: the text of README.
        readme: the file, from which links begin.
        folder: the folder of exported results with `claims.yaml`.

    Raises:
        UserError: if a mark is missing, no or more than one entry has a figure, or an entry has a mistake; the entry is
            named.
    """
    below = os.path.relpath(folder, readme.resolve().parent)
    read, rows, figures = table_reader(folder.resolve()), [], []
    for number, paper in enumerate(read_papers(folder), 1):
        if "readme" not in paper:
            continue
        entry, place = paper["readme"], f"{folder / 'claims.yaml'}: paper {number}, readme"
        check_keys(entry, _KEYS, place, optional={"figure"})
        values = _values(read, entry, place)
        rows.append(_row(entry, values, below))
        if "figure" in entry:
            figure = {"experiment": entry["experiment"], **entry["figure"]}
            path = exported_figure(folder, figure["experiment"], figure["name"], place)
            figures.append(f"![{figure['text']}]({below}/{path})\n\n{values['caption']}")
    if len(figures) != 1:
        raise UserError(f"{folder / 'claims.yaml'}: {len(figures)} entries `readme` have a `figure`; give it to one")
    table = "\n".join(["| Paper | It claims | We measured | Verdict |", "|:--|:--|:--|:--|", *rows])
    return _put(_put(text, "figure", figures[0], readme), "papers", table, readme)


def _values(read: Read, entry: dict[str, Any], place: str) -> dict[str, str]:
    """Returns the texts of an entry with their numbers."""
    texts = ["measured", "verdict"]
    check_verdict(entry["verdict"], place)
    if "figure" in entry:
        check_keys(entry["figure"], {"name", "text", "caption"}, place, optional={"experiment"})
        entry = {**entry, "caption": entry["figure"]["caption"]}
        texts.append("caption")
    return {name: " ".join(text.split()) for name, text in zip(texts, filled(read, entry, texts, place), strict=True)}


def _row(entry: dict[str, Any], values: dict[str, str], below: str) -> str:
    results = f"[{entry['experiment']}]({below}/{entry['experiment']}/README.md)"
    cells = [f"[{entry['title']}]({entry['link']})", entry["claim"], f"{values['measured']} {results}"]
    return " ".join(f"| {' | '.join([*cells, values['verdict']])} |".split())


def _put(text: str, name: str, content: str, readme: Path) -> str:
    marks = re.compile(rf"(<!-- numbers: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marks.search(text):
        raise UserError(f"{readme} has no place for its numbers: write <!-- numbers: {name} --> and <!-- end --> there")
    return marks.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)
