"""Writes what is generated from the models of settings: config/schema.yaml, tables of config/README.md, and
docs/configuration.md.

`make generate` runs it. A test compares the files with what it would write.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.files import write_atomically
from creditflow.core.settings import NoSettings, SettingsModel
from creditflow.core.settings_docs import as_markdown, json_schema
from creditflow.populations.adversary_settings import AdversarySettings
from creditflow.populations.nullspace_settings import NullspaceSettings
from creditflow.populations.optimizer_settings import OptimizerSettings
from creditflow.populations.settings import PopulationSettings
from creditflow.training.settings import FinetuningSettings
from creditflow.workflow import attack_model, experiment_model, given_models, workflow_model
from creditflow.workflow.layout import CLONE

#: The tables of config/README.md: the model that each shows, and whether models within it are shown there, too.
_TABLES: dict[str, tuple[type[SettingsModel], bool]] = {
    "config.yaml": (workflow_model.WorkflowKeys, True),
    "experiment": (experiment_model.ExperimentKeys, False),
    "datasets": (experiment_model.View, True),
    "input": (experiment_model.Input, False),
    "pretrain": (experiment_model.Pretrain, False),
    "finetune": (experiment_model.Finetune, False),
    "training": (FinetuningSettings, True),
    "retrieval": (experiment_model.Retrieval, True),
    "population": (experiment_model.Population, False),
    "variants": (experiment_model.Variant, False),
    "hyperparameters": (experiment_model.PublishedChoice, False),
    "population settings": (PopulationSettings, False),
    "optimizer": (OptimizerSettings, True),
    "adversary": (AdversarySettings, True),
    "attacks": (attack_model.AttackKeys, False),
    "audit": (attack_model.Audit, True),
    "models": (given_models.GivenModel, True),
    "nullspace": (NullspaceSettings, True),
}

#: Kinds of plugins with settings, and the title of each in docs/configuration.md.
_KINDS = {
    "attack": "Attacks on classifiers (`attacks.<id>.settings`)",
    "hash_attack": "Attacks on hash codes (`attacks.<id>.settings` where there is `retrieval`)",
    "update_rule": "Update rules of populations (`rule` of a population's settings, and of `nullspace`)",
    "table": "Tables (`tables.<id>`)",
    "figure": "Figures (`figures.<id>`)",
}


def generated_files(root: Path) -> dict[Path, str]:
    """Returns the content of every generated file by its path below `root`. Text between the tables of the README
    stays as it is.

    Raises UserError if the README asks for a table that is not there.
    """
    readme = root / "config/README.md"
    return {
        root / "config/schema.yaml": _schema_file(),
        readme: _with_tables(readme.read_text(encoding="utf-8"), readme),
        root / "docs/configuration.md": _plugins_page(),
    }


def main() -> None:
    """Writes the files that differ, and names them."""
    for path, text in generated_files(CLONE).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text.encode())
            print(f"wrote {path.relative_to(CLONE)}")


def _with_tables(text: str, path: Path) -> str:
    """Returns Markdown with the table in place between `<!-- settings: NAME -->` and `<!-- end -->`."""

    def table(match: "re.Match[str]") -> str:
        if match["name"] not in _TABLES:
            raise UserError(f"{path}: no settings are called {match['name']!r}; there are: {', '.join(_TABLES)}")
        model, nested = _TABLES[match["name"]]
        return f"<!-- settings: {match['name']} -->\n{as_markdown(model, nested=nested)}\n<!-- end -->"

    return re.sub(r"<!-- settings: (?P<name>[^\n]*) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def _plugins_page() -> str:
    parts = [
        "<!-- Written by `make generate` from the models of settings; do not edit. -->",
        "# Settings of attacks, rules, tables and figures",
        "What each file can be told in an experiment. The other keys are in [config/README.md](../config/README.md).",
    ]
    for kind, title in _KINDS.items():
        parts.append(f"## {title}")
        without = []
        for name in plugins.built_in_names(kind):
            model = plugins.settings_class(kind, name)
            if model is NoSettings or not model.model_fields:
                without.append(f"`{name}`")
                continue
            summary = " ".join(plugins.docstring(kind, name).split("\n\n")[0].split())
            parts += [f"### {name}", summary, as_markdown(model)]
        if without:
            parts.append(f"Nothing to set: {', '.join(without)}.")
    return "\n\n".join(parts) + "\n"


class _Dumper(yaml.SafeDumper):
    """Writes YAML without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_HEADER = """\
# JSON Schema (draft 2020-12) of config/experiments/*.yaml, for editors; `$defs/workflow` is that of config/config.yaml.
# Written by `make generate` from the models of settings; do not edit. Snakemake checks more than a schema can say.
"""


def _schema_file() -> str:
    content = json.loads(json.dumps(schema()))
    return _HEADER + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def schema() -> dict[str, Any]:
    """Returns the JSON Schema of an experiment. What is required inside its sections is left out, as `extends` may
    bring it."""
    made = json_schema(experiment_model.ExperimentKeys, "#/$defs/{model}")
    definitions: dict[str, Any] = made.pop("$defs")
    required = made.pop("required")
    for kind in _KINDS:
        for name in plugins.built_in_names(kind):
            definitions |= _definitions(plugins.settings_class(kind, name), f"{kind}_{name}")
    _refer_to_plugins(made["properties"], definitions)
    _relax([made, definitions])
    definitions |= _definitions(workflow_model.WorkflowKeys, "workflow")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "if": {"required": ["extends"]},
        "else": {"required": required},
        "$defs": definitions,
    }


def _definitions(model: type[SettingsModel], name: str) -> dict[str, Any]:
    """Returns the schema of a model, and those of models within it, by names that begin with `name`."""
    made = json_schema(model, f"#/$defs/{name}_{{model}}")
    inner = made.pop("$defs", {})
    return {name: made} | {f"{name}_{key}": value for key, value in inner.items()}


def _refer_to_plugins(properties: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Puts the settings of each plugin in its place, by the plugin's id."""
    kinds = ("attack", "hash_attack")
    attacks = {name: f"{kind}_{name}" for kind in kinds for name in plugins.built_in_names(kind)}
    _put(properties, "attacks", {name: _with_settings("AttackKeys", "settings", attacks[name]) for name in attacks})
    for kind in ("table", "figure"):
        _put(
            properties, f"{kind}s", {name: {"$ref": f"#/$defs/{kind}_{name}"} for name in plugins.built_in_names(kind)}
        )
    rules = {name: f"update_rule_{name}" for name in plugins.built_in_names("update_rule")}
    _put(properties, "nullspace", {name: _with_settings("NullspaceSettings", "rule", rules[name]) for name in rules})
    for part in ("PopulationPart", "_DatasetPart"):
        settings = {name: _with_settings("PopulationSettingsPart", "rule", rules[name]) for name in rules}
        _put(definitions[part]["properties"], "rules", settings)


def _put(properties: dict[str, Any], section: str, schemas: dict[str, Any]) -> None:
    """Makes a section one that has these keys only; null takes away what `extends` brings."""
    properties[section] = {
        "description": properties[section]["description"],
        "type": "object",
        "properties": {name: _nullable(schema) for name, schema in schemas.items()},
        "additionalProperties": False,
    }


def _with_settings(definition: str, key: str, settings: str) -> dict[str, Any]:
    """Returns the schema of a section in which one key holds a plugin's settings."""
    return {"$ref": f"#/$defs/{definition}", "properties": {key: {"$ref": f"#/$defs/{settings}"}}}


def _relax(schema: Any) -> None:
    """Makes a schema one of an experiment that may extend another, in place.

    Nothing is required within a section, and null takes away a key. Defaults that are mappings are left out, as they
    are those of the keys within.
    """
    if isinstance(schema, dict):
        if isinstance(properties := schema.get("properties"), dict):
            schema["properties"] = {key: _nullable(entry) for key, entry in properties.items()}
        if isinstance(schema.get("additionalProperties"), dict):
            schema["additionalProperties"] = _nullable(schema["additionalProperties"])
        if isinstance(patterns := schema.get("patternProperties"), dict):
            schema["patternProperties"] = {pattern: _nullable(entry) for pattern, entry in patterns.items()}
        if isinstance(schema.get("required"), list):
            del schema["required"]
        if "default" in schema and (schema["default"] is None or isinstance(schema["default"], dict)):
            del schema["default"]
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _relax(inner)


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if {"type": "null"} in schema.get("anyOf", []):
        return schema
    about = {key: schema[key] for key in ("title", "description") if key in schema}
    return about | {"anyOf": [{key: value for key, value in schema.items() if key not in about}, {"type": "null"}]}


if __name__ == "__main__":
    main()
