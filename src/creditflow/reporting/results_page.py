"""The page of results: what papers claim beside what was measured, every number from an exported table.

`claims.yaml` is a list of papers. A paper has

- `title`;
- `claims`, a list of what it claims;
- `elsewhere`, a list of what was not run here, each with `what` and `command`;
- where one figure settles the question, `figure`, with `experiment`, `name` and `caption`;
- where all of its claims need an explanation, `note`;
- where the paper contradicts itself, `against_itself`, a list of what it says and what in it speaks against that;
- where README has a row of it, `readme` (see `reporting/readme.py`).

A claim has `claim`, `data`, `experiment`, `verdict`, `measured` and `numbers`. The texts `verdict` and `measured` have
names in braces. For each name, `numbers` says in which table, row and column its number is:
{table, where: {column: value}, column, form}, with a form of "percent", "points", "number" or "text". The table is one
of the claim's experiment, unless the number has an `experiment` of its own. An entry of `against_itself` has `says`,
`against`, `experiment` and `numbers`, and names in braces in `against`.
"""

import functools
import math
import re
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import read_csv, read_plain, warn
from creditflow.reporting.export_seal import check_exported

_PAPER = {"title", "claims", "elsewhere"}
_CLAIM = {"claim", "data", "experiment", "measured", "numbers", "verdict"}
_CONTRADICTION = {"says", "against", "experiment", "numbers"}
_NUMBER = {"table", "where", "column", "form"}

#: What reads a table, by its experiment and its name.
Read = Callable[[str, str], pd.DataFrame]

_FORMS: dict[str, Callable[[Any], str]] = {
    "percent": lambda value: f"{100 * float(value):.1f}",
    "points": lambda value: f"{100 * float(value):+.1f}",
    "number": lambda value: f"{float(value):.3g}",
    "text": str,
}


#: What the values of keys are; all others are texts.
_MAPPING, _LIST = (dict, "a mapping"), (list, "a list")
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("figure", "numbers", "readme", "where"), _MAPPING),
    **dict.fromkeys(("against_itself", "claims", "elsewhere"), _LIST),
}
_NAME = re.compile(r"{(\w+)}")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 50
_MAX_VALUES = 100_000
_MAX_CLAIMS = 16 << 20


def _check_expansion(text: str) -> None:
    """Raises ValueError for YAML that would take time or memory without a limit."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
    if _expanded(yaml.compose(text, Loader=_LOADER), {}) > _MAX_VALUES:
        raise ValueError("its aliases (*name) stand for too many values, or for themselves; write plain values")


def _expanded(node: Any, sizes: dict[int, float]) -> float:
    """Returns how many values a node has where each alias is replaced by what it stands for; infinity for a circle."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in inner)
    return sizes[id(node)]


def results_page(folder: Path) -> str:
    """Returns the page for a folder of exported results with its `claims.yaml`.

    Raises UserError, which names the claim, if a file, row, column or name does not exist, if several rows fit, or if a
    verdict has a number that is not named.
    """
    papers, parts = read_papers(folder), [_INTRODUCTION]
    read = table_reader(folder)
    for number, paper in enumerate(papers, 1):
        place = f"{folder / 'claims.yaml'}: paper {number}"
        parts.append(f"## {paper['title']}")
        if "figure" in paper:
            parts.append(_figure(folder, paper["figure"], f"{place}, figure"))
        if "note" in paper:
            parts.append(" ".join(paper["note"].split()))
        parts.append(_claims(read, paper["claims"], place))
        if "against_itself" in paper:
            parts.append(_contradictions(read, paper["against_itself"], place))
        parts.append(_elsewhere(paper["elsewhere"], place))
    return "\n\n".join(parts) + "\n"


def read_papers(folder: Path) -> list[dict[str, Any]]:
    """Returns the papers of a folder's `claims.yaml`. Raises UserError if it is no list of papers with their keys."""
    path = folder / "claims.yaml"
    try:
        text = read_plain(path, _MAX_CLAIMS).decode("utf-8-sig")
        _check_expansion(text)
        papers = yaml.load(text, Loader=_LOADER)
    except (OSError, yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)})") from error
    if not isinstance(papers, list):
        raise UserError(f"{path}: expected a list of papers")
    for number, paper in enumerate(papers, 1):
        check_keys(paper, _PAPER, f"{path}: paper {number}", optional={"figure", "note", "against_itself", "readme"})
    return papers


def table_reader(folder: Path) -> Read:
    """Returns what reads a table of an experiment from a folder of exported results, each table once."""
    return functools.cache(functools.partial(_table, folder))


_INTRODUCTION = """# Results

This page shows what the papers claim, and what was measured here. Every number comes from a table of the experiment
that stands beside it, and these tables are made from records with provenance. `make page` writes this page from
`claims.yaml` and the tables. Published numbers are quoted from the papers. The verdicts are ours: "held", "not held",
"masked" (an advantage that a stronger attack takes away), or what the audit says.

Each experiment's folder has its tables (`*.md`, and `*.csv` with all digits), figures, `provenance.json` and a README
that shows them. `make results EXPERIMENT=name` writes the folder from a finished experiment's records. It refuses
results that are missing or older than what they are made from. It also refuses results that were made by several
versions of the sources. With `OPTIONS=--mixed` it takes these, and the experiment's page says so."""


def _claims(read: Read, claims: list[dict[str, Any]], place: str) -> str:
    lines = ["| Claimed | Measured | On | Verdict |", "|:--|:--|:--|:--|"]
    for number, claim in enumerate(claims, 1):
        where = f"{place}, claim {number}"
        check_keys(claim, _CLAIM, where)
        measured, verdict = filled(read, claim, ["measured", "verdict"], where)
        check_verdict(claim["verdict"], where)
        link = f"[{claim['experiment']}]({claim['experiment']}/README.md)"
        lines.append(f"| {claim['claim']} | {measured} | {claim['data']}; {link} | {verdict} |")
    return "\n".join(" ".join(line.split()) for line in lines)


def check_verdict(verdict: str, place: str) -> None:
    """Raises UserError for a verdict with a number of its own, which would not follow the table."""
    if re.search(r"\d", re.sub(r"{\w+}", "", verdict)):
        raise UserError(
            f"{place}: the verdict has a number of its own; name one under `numbers`, so that it follows the table"
        )


def _contradictions(read: Read, entries: list[dict[str, Any]], place: str) -> str:
    lines = ["### What the paper says against itself", "", "| It says | Against that |", "|:--|:--|"]
    for number, entry in enumerate(entries, 1):
        where = f"{place}, contradiction {number}"
        check_keys(entry, _CONTRADICTION, where)
        (against,) = filled(read, entry, ["against"], where)
        lines.append(f"| {entry['says']} | {against} |")
    return "\n".join(" ".join(line.split()) for line in lines)


def filled(read: Read, entry: dict[str, Any], texts: list[str], place: str) -> list[str]:
    """Returns texts of an entry with numbers in the place of their names, which its `numbers` explain.

    Raises UserError if a name or a number does not exist.
    """
    whole = "".join(entry[text] for text in texts)
    unknown = sorted(set(_NAME.findall(whole)) ^ set(entry["numbers"]))
    if unknown:
        raise UserError(f"{place}: {unknown[0]!r} is either not in the text or not under `numbers`")
    if brace := re.search(r"[{}][^{}]*}?", _NAME.sub("", whole)):
        raise UserError(f"{place}: a brace encloses no name: {brace[0]!r}; write {{name}}, with letters, digits and _")
    values = {
        name: _value(read, entry["experiment"], number, f"{place}, {name}") for name, number in entry["numbers"].items()
    }
    return [_NAME.sub(lambda match: values[match[1]], entry[text]) for text in texts]


def _figure(folder: Path, figure: dict[str, str], place: str) -> str:
    check_keys(figure, {"experiment", "name", "caption"}, place)
    path = exported_figure(folder, figure["experiment"], figure["name"], place)
    return f"![{figure['name']} of {figure['experiment']}]({path})\n\n{figure['caption']}"


def exported_figure(folder: Path, experiment: str, name: str, place: str) -> str:
    """Returns the path of an exported figure below the folder. Raises UserError if it is missing or damaged."""
    path = f"{experiment}/figures/{name}.png"
    if not (folder / path).is_file():
        raise UserError(f"{place}: {folder / path} is missing; export {experiment} first")
    _check_whole(folder / path, folder / experiment)
    return path


def _elsewhere(runs: list[dict[str, str]], place: str) -> str:
    for run in runs:
        check_keys(run, {"what", "command"}, place)
    if not runs:
        return "All of it was run here."
    return "Not run here:\n\n" + "\n".join(f"- {run['what']}: `{run['command']}`" for run in runs)


def _value(read: Read, experiment: str, number: dict[str, Any], place: str) -> str:
    check_keys(number, _NUMBER, place, optional={"experiment"})
    experiment = number.get("experiment", experiment)
    try:
        rows = read(str(experiment), str(number["table"]))
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    path = f"{experiment}/tables/{number['table']}.csv"
    for column in (*number["where"], number["column"]):
        if column not in rows:
            raise UserError(f"{place}: {path} has no column {column!r}; it has {', '.join(rows.columns)}")
    for column, wanted in number["where"].items():
        rows = rows[rows[column].isna() if wanted is None else rows[column] == wanted]
    if len(rows) != 1:
        raise UserError(f"{place}: {len(rows)} rows of {path} fit, not one")
    if number["form"] not in _FORMS:
        raise UserError(f"{place}: form must be one of {', '.join(_FORMS)}, not {number['form']!r}")
    cell = rows.iloc[0][number["column"]]
    if pd.isna(cell) or (number["form"] != "text" and isinstance(cell, str)):
        raise UserError(f"{place}: the cell in {path} holds {cell!r}, which cannot be shown as {number['form']}")
    return _FORMS[number["form"]](cell)


def _table(folder: Path, experiment: str, table: str) -> pd.DataFrame:
    path = folder / experiment / "tables" / f"{table}.csv"
    if not path.is_file():
        raise UserError(f"{path} is missing; export {experiment} first")
    _check_whole(path, folder / experiment)
    try:
        return read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a table ({one_line(error)}); export {experiment} again") from error


def _check_whole(path: Path, folder: Path) -> None:
    """Refuses a file that is not the exported one, and says so where nothing tells whether it is."""
    if not check_exported(path, folder):
        warn(f"{path} cannot be verified: {folder}/provenance.json has no hashes of files; export {folder.name} again")


def check_keys(given: Any, keys: set[str], place: str, optional: Set[str] = frozenset()) -> None:
    """Raises UserError for what is no mapping with these keys and fitting values; it may have the optional ones."""
    if not isinstance(given, dict) or set(given) - optional != keys:
        given_keys = ", ".join(map(repr, given)) if isinstance(given, dict) else type(given).__name__
        raise UserError(f"{place}: expected the keys {', '.join(sorted(keys))}, found {given_keys}")
    for key, value in given.items():
        wanted, words = _KINDS.get(key, (str, "a text"))
        if not isinstance(value, wanted):
            raise UserError(f"{place}: {key} must be {words}, found {value!r}")
        for name in value if isinstance(value, dict) else ():
            if not isinstance(name, str):
                raise UserError(f"{place}: {key}: {name!r} is no text; put it into quotation marks")
