"""Settings of tables and figures: what is refused, and with which words."""

import subprocess
import sys
from typing import Any

import pytest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import NoSettings, parse
from helpers import ROOT, stage


def chosen(kind: str, name: str, values: dict[str, Any]) -> Any:
    """Returns the checked settings of a table or figure."""
    return parse(plugins.settings_class(kind, name), values, f"{kind} {name}")


@pytest.mark.parametrize(
    ("kind", "name", "values", "message"),
    [
        ("table", "table3", {}, "epsilon is missing"),
        ("table", "table3", {"epsilom": 2}, "unknown key 'epsilom'; did you mean 'epsilon'?"),
        ("table", "table4", {"epsilon": -1}, "epsilon must be at least 0, not -1"),
        ("table", "table4", {"epsilon": float("inf")}, "epsilon must be a finite number, not inf"),
        ("table", "table4", {"epsilon": "2"}, "epsilon must be a number, not '2'"),
        ("table", "table1", {"epsilon": 2}, "unknown key 'epsilon'"),
        ("table", "overview", {"epsilon_linf": 0.1}, "epsilon_l2 is missing"),
        ("table", "overview", {"epsilon_linf": 1e9, "epsilon_l2": 1}, "epsilon_linf must be at most 100"),
        ("table", "compare", {"datasets": {"cifar10": 3}}, "datasets.cifar10 must be a text, not 3"),
        ("table", "published", {"published": ""}, "published must be a text of at least 1 character"),
        ("table", "population_costs", {"variants": ["mlp"]}, "variants must be keys and values"),
        ("figure", "figure2", {"backbones": "vgg16"}, "unknown key 'backbones'; did you mean 'backbone'?"),
        ("figure", "retrieved", {"queries": 0}, "queries must be at least 1, not 0"),
        ("figure", "retrieved", {"queries": 5}, "queries must be at most 4, not 5"),
        ("figure", "sal_figure2", {"lines": {"tanh": {}}}, "give `lines` in the figure's settings"),
        ("figure", "sal_figure2", {"lines": {"tanh": {"wide": "mlp"}}}, "must be an integer, not 'wide'"),
        ("figure", "sal_figure3", {"variants": {"a": "x", "b": "y"}}, "variants must name one population"),
        ("figure", "sal_figure3", {"variants": {"a": "x"}, "layer": 0}, "layer must be at least 1, not 0"),
        ("figure", "sal_figure4", {"lines": {"all": "sal"}}, "lines must name a variant and a rule"),
        ("figure", "target_propagation_figure4", {"layer": 1.5}, "layer must be an integer, not 1.5"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(kind: str, name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen(kind, name, values)
    assert str(caught.value).startswith(f"{kind} {name}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_and_widths_may_be_numbers_as_yaml_reads_them() -> None:
    assert chosen("figure", "sal_figure5", {"variants": {0.1: "slow", "1": "fast"}}).variants == {
        "0.1": "slow",
        "1": "fast",
    }
    from_yaml = chosen("figure", "sal_figure2", {"lines": {"tanh": {200: "wide", 100: "narrow"}}})
    from_json = chosen("figure", "sal_figure2", {"lines": {"tanh": {"200": "wide", "100": "narrow"}}})
    assert from_yaml == from_json
    assert from_json.lines == {"tanh": {200: "wide", 100: "narrow"}}


def test_a_table_without_a_file_of_settings_has_nothing_to_set() -> None:
    assert plugins.settings_class("table", "table1") is NoSettings
    assert plugins.settings_class("figure", "audit") is NoSettings


def test_settings_are_read_without_heavy_imports() -> None:
    code = (
        "import sys; from creditflow.core import plugins;"
        " [plugins.settings_class(kind, name) for kind in ('table', 'figure') for name in plugins.names(kind)];"
        " assert not {'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


@pytest.mark.parametrize("kind", ["table", "figure"])
def test_every_file_of_settings_belongs_to_a_table_or_figure(kind: str) -> None:
    folder = plugins.path(kind, plugins.names(kind)[0]).with_name("settings")
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert files <= set(plugins.names(kind))


@pytest.mark.parametrize(
    ("script", "plugin", "name", "lines"),
    [
        ("make_table", "table", "overview", ["epsilon_l0", "the number of pixels that change"]),
        ("plot_figure", "figure", "retrieved", ["queries", "integer, 1 to 4"]),
    ],
)
def test_a_stage_shows_the_settings_of_its_table_or_figure(
    script: str, plugin: str, name: str, lines: list[str]
) -> None:
    done = stage(script, "--help-settings", f"--{plugin}", name)
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert line in done.stdout
    done = stage(script, "--help-settings", f"--{plugin}", f"{name}z")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: unknown {plugin} '{name}z'; did you mean '{name}'?")
