"""YAML of a user: what it means, and the one line for what could mean something else."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from creditflow.core.errors import UserError
from creditflow.workflow.yaml_files import MAX_DEPTH, read, read_mapping
from helpers import ROOT


def of(folder: Path, text: str) -> Any:
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    return read_mapping(folder / "a.yaml")["a"]


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda path: path.name)
def test_the_projects_files_mean_what_they_meant_in_yaml_1_1(path: Path) -> None:
    assert repr(read(path)) == repr(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e3", 1000.0),
        ("1.0e-2", 0.01),
        ("-.5", -0.5),
        ("0x1F", 31),
        ("0o17", 15),
        ("-0", 0),
        ("~", None),
        ("", None),
        ("True", True),
        ("'010'", "010"),
        ('"yes"', "yes"),
        ("y", "y"),
        ("1.2.3", "1.2.3"),
        ("|\n  no", "no"),
        ("{<<: {b: 1, c: 2}, b: 3}", {"b": 3, "c": 2}),
        ("{<<: [{b: 1}, {b: 2, c: 2}]}", {"b": 1, "c": 2}),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any, tmp_path: Path) -> None:
    found = of(tmp_path, f"a: {text}")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("010", "'010' is in base 8 in YAML 1.1"),
        ("-08", "'-08' is in base 8 in YAML 1.1"),
        ("1:30", "'1:30' is a number in YAML 1.1"),
        ("1:30.5", "'1:30.5' is a number in YAML 1.1"),
        ("1_000", "'1_000' is a number in YAML 1.1"),
        ("0b11", "'0b11' is a number in YAML 1.1"),
        ("yes", "'yes' is true or false in YAML 1.1"),
        ("[Off]", "'Off' is true or false in YAML 1.1"),
        ("{on: 1}", "'on' is true or false in YAML 1.1"),
        ("2026-11-01", "'2026-11-01' is a date in YAML 1.1"),
        ("2026-13-01", "'2026-13-01' is a date in YAML 1.1"),
        ("=", "'=' is a special key in YAML 1.1"),
        ("{b: 1, b: 2}", "the key 'b' stands twice"),
        ("1\na: 2", "line 2, column 1: the key 'a' stands twice"),
        ("{[b]: 1}", "a key must be a text or a number"),
        ("{<<: 3}", "`<<` takes over keys and values"),
        ("!!set {b}", "the tag 'tag:yaml.org,2002:set' is not understood"),
        ("!!str 010", "the tag 'tag:yaml.org,2002:str' is not understood"),
        ("!!python/object:os.system x", "is not understood"),
        ("&b [*b]", "a value contains itself"),
        ("&b {c: [*b]}", "a value contains itself"),
        ("[" * 300_000, "more than 100 levels"),
        ("9" * 5000, "a number of 5000 digits"),
        ("1\n---\na: 2", "not valid YAML"),
    ],
)
def test_what_could_mean_something_else_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        of(tmp_path, f"a: {text}")
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/a.yaml: ") and message in line and "\n" not in line, line


def test_an_alias_bomb_ends_at_once(tmp_path: Path) -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    began = time.monotonic()
    with pytest.raises(UserError, match="more than 100,000 values once aliases"):
        of(tmp_path, "\n".join(lines))
    merging = ["a: &a0 {k0: 1}", *(f"b{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10))]
    with pytest.raises(UserError, match="more than 100,000 values once aliases"):
        of(tmp_path, "\n".join(merging))
    assert time.monotonic() - began < 1


def test_aliases_that_lead_too_deep_are_refused(tmp_path: Path) -> None:
    lines = ["a: &a0 x", *(f"b{i}: &a{i} [*a{i - 1}]" for i in range(1, MAX_DEPTH + 5))]
    with pytest.raises(UserError, match="more than 100 levels"):
        of(tmp_path, "\n".join(lines))


def test_what_is_no_text_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\x00")
    for path, message in (
        (tmp_path / "a.yaml", "not valid YAML .*; save it as UTF-8"),
        (tmp_path, "cannot be read .it is not a plain file.; it must be a text file"),
        (tmp_path / "none.yaml", "cannot be read .No such file or directory.; it must be a text file"),
    ):
        with pytest.raises(UserError, match=message):
            read(path)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=6)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner))


@settings(max_examples=200, deadline=None)
@given(value=values)
def test_what_is_written_as_json_is_read_back(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("json") / "a.yaml"
    path.write_text(json.dumps({"a": value}, ensure_ascii=False), encoding="utf-8")
    assert read_mapping(path)["a"] == value


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="a0:1 -[]{}&*!<\n'\"|>,.eE_#%@~", max_size=30))
def test_any_text_is_read_or_explained(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("text") / "a.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        read(path)
    except UserError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
