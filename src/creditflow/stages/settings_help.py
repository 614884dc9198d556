"""The option --help-settings of stages that run a plugin: what can be set, from the model that also checks it."""

import argparse

from creditflow.core import plugins
from creditflow.core.settings_docs import as_text


def add_settings_help(parser: argparse.ArgumentParser, plugin: str) -> None:
    """Adds --help-settings to a stage whose option --<plugin> names a plugin."""
    parser.add_argument(
        "--help-settings", action="store_true", help=f"with --{plugin}: show the settings of this {plugin}, and exit"
    )


def parse_or_show_settings(parser: argparse.ArgumentParser, plugin: str, kind: str) -> argparse.Namespace:
    """Returns the parsed options; with --help-settings, shows the settings of the plugin and ends instead.

    Args:
        parser: the parser of the stage.
        plugin: the name, without dashes, of the option that names the plugin.
        kind: the kind of the plugin, a key of `plugins.ROOMS`.

    Raises:
        UserError: if there is no such plugin.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # needs none of the other options
    early.add_argument(f"--{plugin}", dest="name", nargs="?")
    early.add_argument("--help-settings", action="store_true")
    known, _ = early.parse_known_args()
    if not known.help_settings:
        return parser.parse_args()
    if known.name is None:
        parser.error(f"--help-settings needs --{plugin}")
    settings_class = plugins.settings_class(kind, known.name)
    summary = " ".join(plugins.docstring(kind, known.name).partition("\n\n")[0].split())
    print(f"{known.name}: {summary}\n\n{as_text(settings_class)}")
    parser.exit(0)
