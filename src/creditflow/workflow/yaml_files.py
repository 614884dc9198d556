"""Reads YAML files of a user: YAML 1.2's meaning, and one line for whatever could mean something else than it seems.

PyYAML reads YAML 1.1, in which `1e-4` is a text, `010` is eight, `1:30` is ninety and `no` is false. ruamel.yaml
reads YAML 1.2, but in Python: it takes 0.5 s for the project's experiments, which every start of Snakemake reads, and
libyaml takes 0.02 s. So libyaml parses, and this module gives scalars their meaning, that of YAML 1.2's core schema.
Where YAML 1.1 has another meaning, the file is refused.
"""

import math
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import read_plain

#: Levels of lists and keys in each other; an experiment has a dozen.
MAX_DEPTH = 100

#: Values of a file after every alias is replaced by what it stands for; an experiment has some thousands.
MAX_VALUES = 100_000

#: Bytes of a file; an experiment has some kilobytes.
MAX_BYTES = 16 << 20

#: libyaml where PyYAML was built with it, as its wheels are; the parser in Python means the same and is slower.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"

#: The core schema of YAML 1.2 (section 10.3.2): what a scalar without quotes is.
_CORE = {
    "null": re.compile(r"null|Null|NULL|~|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")

#: Characters that look like a space or like nothing, where they take part in what a scalar without quotes means: at its
#: beginning, at its end, and after a colon.
_BLANK = "[\u00a0\u00ad\u1680\u2000-\u200f\u2028-\u202f\u205f\u2060\u3000\ufeff]"
_UNSEEN = re.compile(rf"^{_BLANK}|{_BLANK}$|(?<=:){_BLANK}")

#: More digits than any setting has, and fewer than Python refuses to read.
_MAX_DIGITS = 300

#: What YAML 1.1 takes a scalar without quotes for, where YAML 1.2 takes it for a text.
_SURPRISES = {
    "bool": "true or false in YAML 1.1; write true or false, or put it in quotes",
    "int": "a number in YAML 1.1 (base 2, base 60, or with _); write it in decimal digits, or put it in quotes",
    "float": "a number in YAML 1.1 (base 60, or with _); write it in decimal digits, or put it in quotes",
    "timestamp": "a date in YAML 1.1; put it in quotes",
    "value": "a special key in YAML 1.1; put it in quotes",
}


class _RefusedError(Exception):
    """What is wrong with a value, and where."""

    def __init__(self, node: yaml.Node | yaml.Event, problem: str) -> None:
        mark = node.start_mark
        assert mark is not None
        super().__init__(f"line {mark.line + 1}, column {mark.column + 1}: {problem}")


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns the keys and values of a YAML file.

    Raises:
        UserError: one line that names the file, for a file that cannot be read, that is no YAML, that holds no keys
            and values, whose meaning depends on the version of YAML, in which a key stands twice, or that is too
            deep or too large.
    """
    content = read(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, such as `description: ...`")
    return content


def read(path: Path) -> Any:
    """Returns what a YAML file holds. Raises UserError as `read_mapping` does, except for a file without keys."""
    try:
        text = read_plain(path, MAX_BYTES).decode("utf-8-sig")  # some editors begin a file with a byte order mark
        _check_events(text)
        node = yaml.compose(text, Loader=_LOADER)
        if node is None:
            return None
        _check_size(node, {})
        return _value(node, {})
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML ({one_line(error)}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}: not valid YAML ({_explained(error, text)})") from None
    except OSError as error:
        why = error.strerror or one_line(error)
        raise UserError(f"{path} cannot be read ({why}); it must be a text file of keys and values") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({one_line(error)})") from None
    except _RefusedError as error:
        raise UserError(f"{path}: {one_line(error)}") from None


#: What to do about a character that libyaml did not expect.
_INSTEAD = {
    "\t": "a tab is here; indent with spaces",
    "@": "put a text that begins with @ in quotes",
    "`": "put a text that begins with ` in quotes",
    "%": "put a text that begins with % in quotes",
    "\\": "write \\\\ for one backslash, or use single quotes",
}


def _explained(error: yaml.MarkedYAMLError, text: str) -> str:
    """Returns where a file is no YAML, and what to do about the character there."""
    problem, mark = error.problem or error.context or "", error.problem_mark or error.context_mark
    if mark is None:
        return one_line(error)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    # An escape is marked after its backslash.
    character = line[mark.column : mark.column + 1] if "escape" not in problem else "\\"
    advice = f"; {_INSTEAD[character]}" if character in _INSTEAD else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{advice}"


def numbers_in(value: Any) -> Any:
    """Returns keys and values, such as those of `--config`, with texts such as "1e-4" as the numbers that they are."""
    if isinstance(value, dict):
        return {key: numbers_in(part) for key, part in value.items()}
    if isinstance(value, list):
        return [numbers_in(part) for part in value]
    return float(value) if isinstance(value, str) and _CORE["float"].fullmatch(value) else value


def _check_events(text: str) -> None:
    """Counts levels before libyaml builds them, as too many would end the process, and refuses tags, such as
    `!!set`."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if number > 3 * MAX_VALUES:  # each value is one event, or begins with one and ends with another
            raise _RefusedError(event, f"more than {MAX_VALUES:,} values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _RefusedError(event, f"more than {MAX_DEPTH} levels of lists and keys in each other")
        if (tag := getattr(event, "tag", None)) is not None:
            raise _RefusedError(event, f"the tag {tag!r} is not understood; leave it out")


def _check_size(node: yaml.Node, measured: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Returns how many values and levels a node has with its aliases replaced, without replacing them.

    An alias stands for a node that is complete by then, unless it stands inside that node.
    """
    if id(node) in measured:
        known = measured[id(node)]
        if known is None:
            raise _RefusedError(node, "a value contains itself")
        return known
    measured[id(node)] = None
    values, levels = 1, 1
    for child in _children(node):
        n_values, n_levels = _check_size(child, measured)
        values, levels = values + n_values, max(levels, n_levels + 1)
    if values > MAX_VALUES:
        raise _RefusedError(
            node, f"more than {MAX_VALUES:,} values once aliases (*name) are replaced by what they stand for"
        )
    if levels > MAX_DEPTH:
        raise _RefusedError(node, f"more than {MAX_DEPTH} levels of lists and keys in each other")
    measured[id(node)] = values, levels
    return values, levels


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _value(node: yaml.Node, made: dict[int, Any]) -> Any:
    """Returns the value of a node; an alias gives the same object again."""
    if id(node) not in made:
        if isinstance(node, yaml.ScalarNode):
            made[id(node)] = _scalar(node)
        elif isinstance(node, yaml.MappingNode):
            made[id(node)] = _mapping(node, made)
        else:
            made[id(node)] = [_value(child, made) for child in node.value]
    return made[id(node)]


def _mapping(node: yaml.MappingNode, made: dict[int, Any]) -> dict[Any, Any]:
    """Returns keys and values; those that `<<` takes over come first, and what the mapping says itself counts."""
    taken_over: dict[Any, Any] = {}
    said: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if _is_merge(key_node):
            taken_over = _taken_over(value_node, made) | taken_over
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise _RefusedError(key_node, "a key must be a text or a number, not a list or keys and values")
        key = _scalar(key_node)
        if key in said:
            raise _RefusedError(key_node, f"the key {key_node.value!r} stands twice; take one away")
        said[key] = _value(value_node, made)
    return taken_over | said


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}merge"


def _taken_over(node: yaml.Node, made: dict[int, Any]) -> dict[Any, Any]:
    """Returns what `<<` brings: a mapping, or several of which the first counts most."""
    sources = _value(node, made)
    whole: dict[Any, Any] = {}
    for source in reversed(sources if isinstance(sources, list) else [sources]):
        if not isinstance(source, dict):
            raise _RefusedError(node, "`<<` takes over keys and values, or a list of such")
        whole |= source
    return whole


def _scalar(node: yaml.ScalarNode) -> Any:
    text, older = node.value, node.tag.removeprefix(_TAG)
    if node.style:  # in quotes, or a block of text
        return text
    if unseen := _UNSEEN.search(text):
        raise _RefusedError(
            node,
            f"{text!r} has a character that is not seen ({unicodedata.name(unseen[0], hex(ord(unseen[0])))}); write an"
            " ordinary space instead, or put it in quotes",
        )
    kind = next((kind for kind, pattern in _CORE.items() if pattern.fullmatch(text)), "str")
    if kind == "str" and older in _SURPRISES:
        raise _RefusedError(node, f"{text!r} is {_SURPRISES[older]}")
    if kind == "int" and _LEADING_ZERO.fullmatch(text):
        raise _RefusedError(
            node, f"{text!r} is in base 8 in YAML 1.1; write it without leading zeros, or put it in quotes"
        )
    if kind in ("int", "float") and len(text) > _MAX_DIGITS:
        raise _RefusedError(node, f"a number of {len(text)} digits; write fewer, or put it in quotes")
    return _MAKE[kind](text)


def _float(text: str) -> float:
    word = text.lower().lstrip("+")
    return {".inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}.get(word) or float(text)


def _int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_MAKE: dict[str, Any] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _int,
    "float": _float,
    "str": str,
}
