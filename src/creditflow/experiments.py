"""Experiments: loading, validation, and the files that they are made of. Imports nothing heavy, for the workflow's sake."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from creditflow import plugins
from creditflow.errors import UserError, one_line
from creditflow.plugins import suggestion

#: results/data holds the datasets, which all experiments share; the others are rules of the workflow.
RESERVED = (
    "data",
    "all",
    "fetch",
    "prefetch",
    "prepare",
    "pretrain",
    "finetune",
    "evaluate",
    "attack",
    "audit",
    "collect",
    "make_table",
    "plot_figure",
)

_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Experiment:
    """A validated experiment: its name and its keys, as `config/schema.yaml` describes them."""

    name: str
    keys: Mapping[str, Any]

    def chains(self) -> Iterator[tuple[str, str, str, int]]:
        """Yields (dataset, backbone, rule, seed) of every fine-tuned model."""
        for dataset in self.keys["finetune"]["datasets"]:
            for backbone in self.keys["backbones"]:
                for rule in self.keys["rules"]:
                    for seed in self.keys["seeds"]:
                        yield dataset, backbone, rule, seed

    def conditions(self, rule: str, seed: int) -> Iterator[tuple[str, str]]:
        """Yields (attack, gradient) of every attack on a rule's model; the gradient is "none" for attacks that use none."""
        for attack, keys in self.keys["attacks"].items():
            if rule not in keys.get("rules", self.keys["rules"]) or seed not in keys.get("seeds", self.keys["seeds"]):
                continue
            if plugins.declared("attack", attack, "uses_gradient"):
                yield from ((attack, gradient) for gradient in keys.get("gradients", self.keys["gradients"]))
            else:
                yield attack, "none"

    def surrogate(self, rule: str, seed: int) -> tuple[str, int]:
        """Returns (rule, seed) of the model that transfer attacks on a model are made with.

        It is the model's twin that backpropagation fine-tuned; for BP itself the BP model of the next seed, as a model
        is no surrogate of itself (it has to be, where an experiment has one seed only).
        """
        seeds = self.keys["seeds"]
        return "bp", seed if rule != "bp" else seeds[(seeds.index(seed) + 1) % len(seeds)]

    def record_paths(self, results: Path) -> list[Path]:
        """Returns all records of the experiment, below a results folder."""
        paths = []
        for dataset, backbone, rule, seed in self.chains():
            model = f"{dataset}/{backbone}/{rule}"
            paths.append(results / self.name / f"evaluate/{model}/seed{seed}.json")
            for attack, gradient in self.conditions(rule, seed):
                paths.append(results / self.name / f"attack/{model}/{attack}/{gradient}/seed{seed}.json")
        return paths

    def files(self, results: Path) -> list[Path]:
        """Returns every file that the experiment can make, below a results folder."""
        folder = results / self.name
        models = [folder / f"finetune/{dataset}/{backbone}/{rule}/seed{seed}" for dataset, backbone, rule, seed in self.chains()]
        models += [folder / f"pretrain/{backbone}/seed{seed}" for backbone in self.keys["backbones"] for seed in self.keys["seeds"]]
        families = [
            (models, (".safetensors", ".feedback.safetensors", ".json")),
            (self.record_paths(results), (".json", ".safetensors")),
            ([folder / f"tables/{name}" for name in self.keys["tables"]], (".csv", ".md", ".tex", ".html")),
            ([folder / f"figures/{name}" for name in self.keys["figures"]], (".pdf", ".svg", ".png")),
            ([folder / name for name in ("records", "summary", *(["audit"] if "audit" in self.keys else []))], (".parquet",)),
        ]
        return [path.with_suffix(suffix) for paths, suffixes in families for path in paths for suffix in suffixes]

    def products(self, results: Path) -> list[Path]:
        """Returns what the experiment is for: collected records, tables and figures."""
        folder = results / self.name
        tables = [folder / f"tables/{name}.csv" for name in self.keys["tables"]]
        figures = [folder / f"figures/{name}.pdf" for name in self.keys["figures"]]
        audit = [folder / "audit.parquet"] if "audit" in self.keys else []
        return [folder / "records.parquet", *audit, *tables, *figures]


def load_experiments(folder: Path, schema: Path) -> dict[str, Experiment]:
    """Loads and validates every `*.yaml` of a folder; the file name is the experiment's name.

    Raises UserError, naming file and key, for the first mistake found.
    """
    raw = {path.stem: _read_yaml(path) for path in sorted(folder.glob("*.yaml"))}
    if not raw:
        raise UserError(f"{folder} has no experiments (*.yaml)")
    experiments = {}
    for name in raw:
        where = f"{folder / name}.yaml"
        if name in RESERVED or not _NAME.fullmatch(name):
            raise UserError(f"{where}: an experiment cannot be called {name!r}; rename the file (lower-case words joined by _)")
        keys = _extend(name, raw, folder, ())
        _validate(keys, schema, "experiment", where)
        _check_names(keys, where)
        _check_attacks(keys, where)
        experiments[name] = Experiment(name, keys)
    return experiments


def check_workflow(config: Mapping[str, Any], experiments: Mapping[str, Experiment], schema: Path) -> None:
    """Validates the workflow's own configuration. Raises UserError."""
    _validate(dict(config), schema, "workflow", "configuration")
    find(experiments, config["default_experiment"], "configuration: default_experiment")


def find(experiments: Mapping[str, Experiment], name: str, where: str = "") -> Experiment:
    """Returns an experiment. Raises UserError with the closest name if there is none."""
    if name not in experiments:
        raise UserError(f"{f'{where}: ' if where else ''}unknown experiment {name!r}{suggestion(name, sorted(experiments))}")
    return experiments[name]


def check_target(target: str, experiments: Mapping[str, Experiment], rule_names: list[str]) -> None:
    """Explains a target that cannot be made, before Snakemake does so in general terms. Raises UserError."""
    path = Path(target)
    if len(path.parts) == 1 and target not in rule_names:
        raise UserError(f"{target!r} is neither an experiment nor a rule{suggestion(target, sorted({*experiments, *rule_names}))}")
    if len(path.parts) < 2 or path.parts[0] != "results" or path.parts[1] == "data":
        return
    experiment = find(experiments, path.parts[1], target)
    known = {str(path) for path in experiment.files(Path("results"))}
    if str(path) not in known:
        close = get_close_matches(str(path), known, n=1, cutoff=0)
        raise UserError(f"{target}: experiment {experiment.name!r} makes no such file; the nearest it makes is {close[0]}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, such as `description: ...`")
    return content


def _extend(name: str, raw: Mapping[str, dict[str, Any]], folder: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    keys = raw[name]
    base = keys.get("extends")
    if base is None:
        return keys
    if not isinstance(base, str):
        raise UserError(f"{folder / name}.yaml: extends: {base!r} is not the name of an experiment")
    if base in (*seen, name):
        raise UserError(f"{folder / name}.yaml: extends: {base!r} leads back to itself")
    if base not in raw:
        raise UserError(f"{folder / name}.yaml: extends: unknown experiment {base!r}{suggestion(base, sorted(raw))}")
    return _merge(_extend(base, raw, folder, (*seen, name)), keys)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _merge(base[key], value) if both else value
    return merged


@cache
def _validator(schema: Path, definition: str) -> Draft202012Validator:
    content = yaml.safe_load(schema.read_text())
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": content["$defs"]})


def _validate(keys: dict[str, Any], schema: Path, definition: str, where: str) -> None:
    _refuse_not_finite(keys, where, "")
    error = best_match(_validator(schema, definition).iter_errors(keys))
    if error is not None:
        raise UserError(f"{where}: {_explain(error)}")


def _refuse_not_finite(value: Any, where: str, place: str) -> None:
    """NaN passes every comparison of a schema, and infinity every minimum."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {place}: {value} is not a finite number")
    if isinstance(value, Mapping | list):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _refuse_not_finite(inner, where, f"{place}.{key}".lstrip("."))


def _explain(error: ValidationError) -> str:
    place = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{place}: " if place else ""
    if error.validator == "additionalProperties" and isinstance(error.schema, Mapping) and isinstance(error.instance, Mapping):
        known = sorted(error.schema.get("properties", {}))
        unknown = next(key for key in error.instance if key not in known)
        return f"{prefix}unknown key {unknown!r}{suggestion(str(unknown), known)}"
    if error.validator in ("minItems", "minProperties"):
        return f"{prefix}must not have fewer than {error.validator_value} entries"
    return prefix + " ".join(error.message.split())


def _check_names(keys: Mapping[str, Any], where: str) -> None:
    """Checks every id against the plugins, and every reference between sections."""
    used = {
        "backbones": ("backbone", keys["backbones"]),
        "rules": ("rule", keys["rules"]),
        "attacks": ("attack", keys["attacks"]),
        "tables": ("table", keys["tables"]),
        "figures": ("figure", keys["figures"]),
        "datasets": ("dataset", [view["source"] for view in keys["datasets"].values()]),
    }
    for section, (kind, ids) in used.items():
        for name in ids:
            try:
                plugins.check(kind, name)
            except UserError as error:
                raise UserError(f"{where}: {section}: {error}") from None
    for section, names in (("pretrain.dataset", [keys["pretrain"]["dataset"]]), ("finetune.datasets", keys["finetune"]["datasets"])):
        for name in names:
            if name not in keys["datasets"]:
                raise UserError(f"{where}: {section}: {name!r} is not under `datasets`{suggestion(name, sorted(keys['datasets']))}")


def _check_attacks(keys: Mapping[str, Any], where: str) -> None:
    """Checks what the schema cannot say of attacks and the audit."""
    for attack, its in keys["attacks"].items():
        place = f"{where}: attacks.{attack}"
        if any(later <= earlier for earlier, later in pairwise(its["epsilons"])):
            raise UserError(f"{place}.epsilons: {its['epsilons']} must rise")
        for key in ("rules", "gradients", "seeds"):
            for name in its.get(key, []):
                if name not in keys[key]:
                    raise UserError(f"{place}.{key}: {name!r} is not under `{key}`{suggestion(str(name), list(map(str, keys[key])))}")
        if plugins.declared("attack", attack, "uses_surrogate", False) and "bp" not in keys["rules"]:
            raise UserError(f"{place}: transfers from the model that `bp` fine-tuned; add `bp` to `rules`")
    audited = [
        name for kind in ("table", "figure") for name in keys[f"{kind}s"] if plugins.declared(kind, name, "source", "summary") == "audit"
    ]
    if audited and "audit" not in keys:
        raise UserError(f"{where}: {audited[0]} shows the audit; add `audit`")
    if "audit" in keys:
        _check_audit(keys, keys["audit"], f"{where}: audit")


def _check_audit(keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    if "bp" not in keys["rules"]:
        raise UserError(f"{where}: rules are compared with `bp`; add it to `rules`")
    claim = audit["claim"]
    if claim not in audit["attacks"]:
        raise UserError(f"{where}.claim: {claim!r} is not under `audit.attacks`")
    for attack in audit["attacks"]:
        if attack not in keys["attacks"]:
            raise UserError(f"{where}.attacks: {attack!r} is not under `attacks`{suggestion(attack, sorted(keys['attacks']))}")
        if plugins.declared("attack", attack, "norm") != plugins.declared("attack", claim, "norm"):
            raise UserError(f"{where}.attacks: {attack} bounds another norm than {claim}; a worst case needs one norm")
        _check_audited(attack, keys, audit, f"{where}.attacks: {attack}")
    if not plugins.declared("attack", claim, "uses_gradient") or "rules" in keys["attacks"][claim]:
        raise UserError(f"{where}.claim: {claim} must use a gradient and attack every rule")
    exact = [name for name in audit["attacks"] if plugins.declared("attack", name, "uses_gradient") and "exact" in _gradients(keys, name)]
    if not exact:
        raise UserError(f"{where}.attacks: none uses the exact gradient, without which a hidden one cannot be told")


def _check_audited(attack: str, keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    its = keys["attacks"][attack]
    met = set(its.get("rules", keys["rules"]))
    only_feedback = plugins.declared("attack", attack, "uses_gradient") and _gradients(keys, attack) == ["feedback"]
    # An attack through feedback weights may be for some rules only, as BP's feedback weights are its own.
    if met != set(keys["rules"]) and ("bp" in met or not only_feedback):
        raise UserError(f"{where} does not attack every rule, so that worst cases would not compare")
    if set(its.get("seeds", keys["seeds"])) != set(keys["seeds"]):
        raise UserError(f"{where} leaves out seeds, so that worst cases would not compare")
    if plugins.declared("attack", attack, "uses_surrogate", False) and len(keys["seeds"]) == 1:
        raise UserError(f"{where} needs a second seed, for a BP model that is not the one it attacks")
    for epsilon in audit["epsilons"]:
        if epsilon not in its["epsilons"]:
            raise UserError(f"{where} has no epsilon {epsilon}; it has {its['epsilons']}")


def _gradients(keys: Mapping[str, Any], attack: str) -> list[str]:
    found: list[str] = keys["attacks"][attack].get("gradients", keys["gradients"])
    return found
