"""Experiments: loading, validation, and the files that they are made of. Imports nothing heavy, for the workflow's sake."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from creditflow.core import plugins
from creditflow.core.errors import UserError, one_line
from creditflow.core.merging import merged
from creditflow.core.plugins import suggestion
from creditflow.workflow.consistency import attack_kind, check_keys, check_lender, input_of, networks, trained_datasets
from creditflow.workflow.published_hyperparameters import with_published

#: results/data holds the datasets, which all experiments share; the others are rules of the workflow, or folders of an experiment.
RESERVED = (
    "data",
    "all",
    "fetch",
    "fetch_weights",
    "prefetch",
    "prepare",
    "import_weights",
    "pretrain",
    "finetune",
    "train_population",
    "select_member",
    "population",
    "member",
    "measure_nullspace",
    "nullspace",
    "evaluate",
    "attack",
    "encode",
    "retrieve",
    "attack_retrieval",
    "audit",
    "collect",
    "make_table",
    "plot_figure",
)

_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")

#: Levels of a configuration file; what is used has a dozen.
_MAX_DEPTH = 100


@dataclass(frozen=True)
class Experiment:
    """A validated experiment: its name and its keys, as `config/schema.yaml` describes them."""

    name: str
    keys: Mapping[str, Any]

    @property
    def datasets(self) -> list[str]:
        """Views of datasets that models are measured on."""
        found: list[str] = trained_datasets(self.keys)
        return found

    @property
    def networks(self) -> list[str]:
        """What stands for the backbone in paths and records: backbones, or the variants of a population."""
        return networks(self.keys)

    def chains(self) -> Iterator[tuple[str, str, str, int]]:
        """Yields (dataset, backbone, rule, seed) of every model that is measured."""
        for dataset in self.datasets:
            for network in self.networks:
                for rule in self.rules_of(dataset, network):
                    for seed in self.seeds_of(network, rule):
                        yield dataset, network, rule, seed

    def rules_of(self, dataset: str, network: str) -> list[str]:
        """Returns the rules that train a network on a dataset."""
        rules: list[str] = self.keys["rules"]
        if "population" not in self.keys:
            return rules
        return [
            rule
            for rule in rules
            if rule in self.keys["population"]["variants"][network]["learning_rates"].get(dataset, {})
        ]

    def seeds_of(self, network: str, rule: str) -> list[int]:
        """Returns the seeds that a network is trained with by a rule."""
        seeds: list[int] = self.keys["seeds"]
        if "population" not in self.keys:
            return seeds
        variant = self.keys["population"]["variants"][network]
        own: list[int] = variant.get("rule_seeds", {}).get(rule, variant.get("seeds", seeds))
        return own

    def population(self, dataset: str, variant: str, rule: str) -> dict[str, Any]:
        """Returns the settings of a population's training: the common ones, the variant's, in these the dataset's, in all of these the
        rule's."""
        section = self.keys["population"]
        settings = merged(section["settings"], section["variants"][variant].get("settings", {}))
        settings = merged(settings, settings.pop("datasets", {}).get(dataset, {}))
        return merged(settings, settings.pop("rules", {}).get(rule, {}))

    def model(self, results: Path, dataset: str, network: str, rule: str, seed: int) -> Path:
        """Returns a trained model below a results folder, without suffix."""
        stage = "member" if "population" in self.keys else "finetune"
        return results / self.name / stage / dataset / network / rule / f"seed{seed}"

    def pretrained(self, backbone: str, seed: int) -> Path | None:
        """Returns the model that a fine-tuning starts from, below the results folder and without suffix; None for a random start."""
        pretrain = self.keys["pretrain"]
        if "start" in pretrain:
            return None
        folder = Path(pretrain.get("experiment", self.name), "pretrain", backbone)
        return folder / ("imported" if "weights" in pretrain else f"seed{seed}")

    def input(self, backbone: str) -> dict[str, Any]:
        """Returns what a backbone sees of the images."""
        return input_of(self.keys, backbone)

    def training(self, dataset: str) -> dict[str, Any]:
        """Returns the settings of fine-tuning on a dataset."""
        finetune = self.keys["finetune"]
        own: dict[str, Any] = finetune.get("overrides", {}).get(dataset, {})
        common: dict[str, Any] = finetune["settings"]
        return common | own

    def retrieval(self, dataset: str) -> dict[str, Any] | None:
        """Returns what the stages are told of retrieval on a dataset; None where the task is classification."""
        if "retrieval" not in self.keys:
            return None
        common = dict(self.keys["retrieval"])
        protocols, tops = common.pop("protocols"), common.pop("tops", {})
        return common | {
            "protocol": protocols[dataset],
            "top": tops.get(dataset, common["top"]),
            "loss": common.get("loss", {}),
        }

    def conditions(self, dataset: str, rule: str, seed: int, network: str | None = None) -> Iterator[tuple[str, str]]:
        """Yields (attack, gradient) of every attack on a model; the gradient is "none" for attacks that use none.

        Without a network, those of attacks on any.
        """
        met = {"datasets": dataset, "rules": rule, "seeds": seed} | ({} if network is None else {"backbones": network})
        for attack, keys in self.keys["attacks"].items():
            if any(name not in keys.get(key, [name]) for key, name in met.items()):
                continue
            if plugins.declared(attack_kind(self.keys), attack, "uses_gradient"):
                yield from ((attack, gradient) for gradient in keys.get("gradients", self.keys["gradients"]))
            else:
                yield attack, "none"

    def surrogate(self, network: str, rule: str, seed: int) -> tuple[str, int]:
        """Returns (rule, seed) of the model that transfer attacks on a model are made with.

        It is the model's twin that backpropagation fine-tuned; for BP itself the BP model of the next seed, as a model
        is no surrogate of itself (it has to be, where an experiment has one seed only).
        """
        seeds = self.seeds_of(network, "bp")
        return "bp", seed if rule != "bp" else seeds[(seeds.index(seed) + 1) % len(seeds)]

    def record_paths(self, results: Path) -> list[Path]:
        """Returns all records of the experiment, below a results folder."""
        plain, under_attack = ("retrieve", "attack_retrieval") if "retrieval" in self.keys else ("evaluate", "attack")
        paths = []
        for dataset, backbone, rule, seed in self.chains():
            model = f"{dataset}/{backbone}/{rule}"
            paths.append(results / self.name / f"{plain}/{model}/seed{seed}.json")
            for attack, gradient in self.conditions(dataset, rule, seed, backbone):
                paths.append(results / self.name / f"{under_attack}/{model}/{attack}/{gradient}/seed{seed}.json")
        toys = [(rule, seed) for rule in self.keys.get("nullspace", {}) for seed in self.keys["seeds"]]
        return paths + [results / self.name / f"nullspace/{rule}/seed{seed}.json" for rule, seed in toys]

    def populations(self, results: Path) -> list[Path]:
        """Returns all populations, below a results folder and without suffix."""
        return sorted(
            {
                results / self.name / "population" / Path(*chain[:3])
                for chain in self.chains()
                if "population" in self.keys
            }
        )

    def starts(self, results: Path) -> list[Path]:
        """Returns all models that fine-tuning starts from, below a results folder and without suffix."""
        starts = {
            self.pretrained(backbone, seed)
            for backbone in self.keys.get("backbones", [])
            for seed in self.keys["seeds"]
        }
        return sorted(results / start for start in starts if start is not None)

    def trainings(self, results: Path) -> list[Path]:
        """Returns what trainings left, below a results folder and without suffix: populations, or models and what they start from."""
        models = [self.model(results, *chain) for chain in self.chains()]
        return self.populations(results) or self.starts(results) + models

    def files(self, results: Path) -> list[Path]:
        """Returns every file that the experiment can make, below a results folder."""
        folder = results / self.name
        models = [self.model(results, *chain) for chain in self.chains()] + self.starts(results)
        codes = [
            folder / f"codes/{'/'.join(map(str, chain[:3]))}/seed{chain[3]}"
            for chain in self.chains()
            if "retrieval" in self.keys
        ]
        families = [
            (models, (".safetensors", ".feedback.safetensors", ".json")),
            (self.populations(results), (".safetensors", ".json")),
            (codes, (".safetensors",)),
            (self.record_paths(results), (".json", ".safetensors")),
            ([folder / f"tables/{name}" for name in self.keys["tables"]], (".csv", ".md", ".tex", ".html")),
            ([folder / f"figures/{name}" for name in self.keys["figures"]], (".pdf", ".svg", ".png")),
            (
                [folder / name for name in ("records", "summary", *(["audit"] if "audit" in self.keys else []))],
                (".parquet",),
            ),
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
        if name in RESERVED or name.startswith("prefetch_") or not _NAME.fullmatch(name):
            raise UserError(
                f"{where}: an experiment cannot be called {name!r}; rename the file (lower-case words joined by _)"
            )
        keys = _extend(name, raw, folder, ())
        _validate(keys, schema, "experiment", where)
        keys = _with_published(keys, where)
        check_keys(keys, where)
        experiments[name] = Experiment(name, keys)
    for name, experiment in experiments.items():
        check_lender(experiment.keys, {other: one.keys for other, one in experiments.items()}, f"{folder / name}.yaml")
    return experiments


def check_workflow(config: Mapping[str, Any], experiments: Mapping[str, Experiment], schema: Path) -> None:
    """Validates the workflow's own configuration. Raises UserError."""
    _validate(dict(config), schema, "workflow", "configuration")
    find(experiments, config["default_experiment"], "configuration: default_experiment")


def find(experiments: Mapping[str, Experiment], name: str, where: str = "") -> Experiment:
    """Returns an experiment. Raises UserError with the closest name if there is none."""
    if name not in experiments:
        raise UserError(
            f"{f'{where}: ' if where else ''}unknown experiment {name!r}{suggestion(name, sorted(experiments))}"
        )
    return experiments[name]


def check_target(target: str, experiments: Mapping[str, Experiment], rule_names: list[str]) -> None:
    """Explains a target that cannot be made, before Snakemake does so in general terms. Raises UserError."""
    path = Path(target)
    if len(path.parts) == 1 and target not in rule_names:
        raise UserError(
            f"{target!r} is neither an experiment nor a rule{suggestion(target, sorted({*experiments, *rule_names}))}"
        )
    if len(path.parts) < 2 or path.parts[0] != "results" or path.parts[1] == "data":
        return
    experiment = find(experiments, path.parts[1], target)
    known = {str(path) for path in experiment.files(Path("results"))}
    if str(path) not in known:
        close = get_close_matches(str(path), known, n=1, cutoff=0)
        raise UserError(
            f"{target}: experiment {experiment.name!r} makes no such file; the nearest it makes is {close[0]}"
        )


def _load_yaml(path: Path) -> Any:
    """Reads a file with libyaml where PyYAML has it: every start of Snakemake reads all experiments, half a second longer in Python.

    Raises UserError where levels are nested so deeply that they would end the interpreter.
    """
    text, loader = path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise UserError(f"{path}: more than {_MAX_DEPTH} levels of lists and keys in each other")
    return yaml.load(text, Loader=loader)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = _load_yaml(path)
    except (OSError, yaml.YAMLError, ValueError) as error:  # ValueError: of bytes that are no text, of a 13th month
        raise UserError(f"{path}: not valid YAML ({one_line(error)})") from error
    try:
        json.dumps(content, default=str, skipkeys=True)
    except ValueError as error:  # of a circle
        raise UserError(f"{path}: a value contains itself") from error
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
    return merged(_extend(base, raw, folder, (*seen, name)), keys)


def _with_published(keys: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the keys with published hyper-parameters in the place of their names."""
    variants: dict[str, Any] = keys.get("population", {}).get("variants", {})
    filled = {
        name: with_published(variant, keys["rules"], f"{where}: population.variants.{name}.hyperparameters")
        for name, variant in variants.items()
        if "hyperparameters" in variant
    }
    return (
        merged(
            keys, {"population": {"variants": {name: {"hyperparameters": None} | its for name, its in filled.items()}}}
        )
        if filled
        else keys
    )


@cache
def _validator(schema: Path, definition: str) -> Draft202012Validator:
    content = _load_yaml(schema)
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": content["$defs"]})


def _validate(keys: dict[str, Any], schema: Path, definition: str, where: str) -> None:
    _refuse_not_finite(keys, where, "")
    errors = list(_validator(schema, definition).iter_errors(keys))
    # A misspelt key is one too many and one too few: the first tells more.
    error = best_match([error for error in errors if error.validator == "additionalProperties"] or errors)
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
    place = " ".join(".".join(str(part) for part in error.absolute_path).split())  # keys, too, may hold line breaks
    prefix = f"{place}: " if place else ""
    if (
        error.validator == "additionalProperties"
        and isinstance(error.schema, Mapping)
        and isinstance(error.instance, Mapping)
    ):
        known = sorted(error.schema.get("properties", {}))
        unknown = next(key for key in error.instance if key not in known)
        return f"{prefix}unknown key {unknown!r}{suggestion(str(unknown), known)}"
    if error.validator in ("minItems", "minProperties"):
        return f"{prefix}must not have fewer than {error.validator_value} entries"
    return prefix + " ".join(error.message.split())
