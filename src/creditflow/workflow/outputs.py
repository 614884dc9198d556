"""Which files an experiment makes: models, records, tables and the rest. It imports nothing heavy.

All paths lie below a folder of results, which is the argument `results`.
"""

from collections.abc import Iterator
from pathlib import Path

from creditflow.attacks.kinds import needs_surrogate
from creditflow.core import plugins
from creditflow.core.factory import parse_source
from creditflow.core.files import as_path
from creditflow.core.gradients import folder_of, parse_gradient
from creditflow.core.matched import matched_to
from creditflow.data.image_folders import source_id
from creditflow.workflow import layout
from creditflow.workflow.consistency import imports
from creditflow.workflow.experiments import Chain, Experiment
from creditflow.workflow.given_models import files_of_models, given
from creditflow.workflow.layout import Place


def path_of(place: Place, experiment: Experiment, results: Path, chain: Chain, **others: str) -> Path:
    """Returns where a rule puts its files for a model, without suffix; `others` are the attack and the gradient."""
    dataset, network, rule, seed = chain
    others |= {"gradient": folder_of(others["gradient"])} if "gradient" in others else {}
    return place.path(
        results, experiment=experiment.name, dataset=dataset, backbone=network, rule=rule, seed=seed, **others
    )


def model(experiment: Experiment, results: Path, chain: Chain) -> Path:
    """Returns a trained or given model, without suffix."""
    return path_of(_place_of_models(experiment), experiment, results, chain)


def _place_of_models(experiment: Experiment) -> Place:
    """Returns the place of the stage that writes the models that are measured."""
    if given(experiment.keys):
        return layout.IMPORT_MODEL
    return layout.SELECT_MEMBER if "population" in experiment.keys else layout.FINETUNE


def identity(experiment: Experiment, chain: Chain) -> dict[str, object]:
    """Returns what a trained or given model must say that it is."""
    return {"stage": _place_of_models(experiment).rule, **named(experiment, chain), "seed": chain[3]}


def named(experiment: Experiment, chain: Chain) -> dict[str, object]:
    """Returns the names under which a model or a population is filed."""
    dataset, network, rule, _ = chain
    task = "retrieval" if "retrieval" in experiment.keys else "classification"
    return {"experiment": experiment.name, "task": task, "dataset": dataset, "backbone": network, "rule": rule}


def start_identity(experiment: Experiment, backbone: str, seed: int) -> dict[str, object]:
    """Returns what the model that a fine-tuning starts from must say that it is; nothing for a random start."""
    pretrain = experiment.keys["pretrain"]
    if "start" in pretrain:
        return {}
    filed = {"experiment": pretrain.get("experiment", experiment.name), "backbone": backbone}
    return {"stage": "import_weights", **filed} if imports(pretrain) else {"stage": "pretrain", **filed, "seed": seed}


def start(experiment: Experiment, results: Path, backbone: str, seed: int) -> Path | None:
    """Returns the model that a fine-tuning starts from, without suffix; None for a random start."""
    pretrain = experiment.keys["pretrain"]
    if "start" in pretrain:
        return None
    owner = pretrain.get("experiment", experiment.name)
    place = layout.IMPORT_WEIGHTS if imports(pretrain) else layout.PRETRAIN
    return place.path(results, experiment=owner, backbone=backbone, seed=seed)


def matched_record(experiment: Experiment, results: Path, chain: Chain) -> Path | None:
    """Returns the record of the clean accuracy at which the training of `bp_matched_<rule>` stops; None for others."""
    dataset, network, rule, seed = chain
    wanted_rule = matched_to(rule)
    if wanted_rule is None:
        return None
    return path_of(layout.EVALUATE, experiment, results, (dataset, network, wanted_rule, seed)).with_suffix(".json")


def with_sidecar(model: Path | None) -> list[Path]:
    """Returns the files of a model that a stage reads, given its path without suffix; nothing for no model."""
    return [] if model is None else [model.with_suffix(suffix) for suffix in (".safetensors", ".json")]


def surrogates(experiment: Experiment, chain: Chain, attack: str, gradient: str) -> dict[str, Chain]:
    """Returns the models that an attack through a gradient makes its images on, by their names; nothing for most."""
    if not transfers(experiment, attack, gradient):
        return {}
    return surrogates_of_transfer(experiment, chain, attack, gradient)


def surrogates_of_transfer(experiment: Experiment, chain: Chain, attack: str, gradient: str) -> dict[str, Chain]:
    """Returns the models that an attack makes its images on, by their names, if it is known that it `transfers`."""
    name = parse_gradient(gradient).surrogate
    chains = experiment.surrogates(chain, attack)
    return {name: chains[name]} if name else chains


def transfers(experiment: Experiment, attack: str, gradient: str) -> bool:
    """Returns whether an attack through a gradient makes its images on other models than the one that it attacks."""
    if parse_gradient(gradient).surrogate:
        return True
    return needs_surrogate(attack, experiment.attack(attack, gradient).get("settings", {}))


def checks_convergence(experiment: Experiment, attack: str, gradient: str) -> bool:
    """Returns whether an attack shows if it has converged: those do that follow the exact gradient in an audit."""
    audited = attack in experiment.keys.get("audit", {}).get("attacks", [])
    return audited and gradient == "exact" and bool(plugins.declared("attack", attack, "converges", False))


def starts(experiment: Experiment, results: Path) -> list[Path]:
    """Returns all models that fine-tuning starts from, without suffix."""
    backbones = experiment.keys.get("backbones", [])
    paths = {start(experiment, results, backbone, seed) for backbone in backbones for seed in experiment.keys["seeds"]}
    return sorted(path for path in paths if path is not None)


def models(experiment: Experiment, results: Path) -> list[Path]:
    """Returns all models that are measured, without suffix."""
    return [model(experiment, results, chain) for chain in experiment.chains()]


def populations(experiment: Experiment, results: Path) -> list[Path]:
    """Returns all populations, without suffix."""
    if "population" not in experiment.keys:
        return []
    paths = {path_of(layout.TRAIN_POPULATION, experiment, results, chain) for chain in experiment.chains()}
    return sorted(paths)


def trainings(experiment: Experiment, results: Path) -> list[Path]:
    """Returns what trainings leave, without suffix: populations, or models and what they start from."""
    return populations(experiment, results) or starts(experiment, results) + models(experiment, results)


def record_paths(experiment: Experiment, results: Path) -> list[Path]:
    """Returns all records."""
    return [path.with_suffix(".json") for path in _records(experiment, results)]


def _records(experiment: Experiment, results: Path) -> Iterator[Path]:
    for chain in experiment.chains():
        yield from _records_of_model(experiment, results, chain)
    for rule in experiment.keys.get("nullspace", {}):
        for seed in experiment.keys["seeds"]:
            yield layout.MEASURE_NULLSPACE.path(results, experiment=experiment.name, rule=rule, seed=seed)


def _records_of_model(experiment: Experiment, results: Path, chain: Chain) -> Iterator[Path]:
    retrieves = "retrieval" in experiment.keys
    clean, attacked = (layout.RETRIEVE, layout.ATTACK_RETRIEVAL) if retrieves else (layout.EVALUATE, layout.ATTACK)
    dataset, network, rule, seed = chain
    yield path_of(clean, experiment, results, chain)
    for attack, gradient in experiment.conditions(dataset, rule, seed, network):
        yield path_of(attacked, experiment, results, chain, attack=attack, gradient=gradient)
    for gradient in experiment.why_gradients(rule, seed):
        yield path_of(layout.MEASURE_GRADIENTS, experiment, results, chain, gradient=gradient)


def wanted(experiment: Experiment, results: Path) -> list[Path]:
    """Returns what the experiment's target asks for: collected records, the audit, tables and figures."""
    name = experiment.name
    tables = [
        layout.MAKE_TABLE.path(results, ".csv", experiment=name, table=table) for table in experiment.keys["tables"]
    ]
    figures = [
        layout.PLOT_FIGURE.path(results, ".pdf", experiment=name, figure=figure)
        for figure in experiment.keys["figures"]
    ]
    audit = [layout.AUDIT.path(results, ".parquet", experiment=name)] if "audit" in experiment.keys else []
    return [layout.COLLECT.path(results, ".parquet", experiment=name), *audit, *tables, *figures]


def all_files(experiment: Experiment, results: Path) -> list[Path]:
    """Returns every file that the experiment can make."""
    codes = [
        path_of(layout.ENCODE, experiment, results, chain)
        for chain in experiment.chains()
        if "retrieval" in experiment.keys
    ]
    ends = wanted(experiment, results)
    families = [
        (models(experiment, results) + starts(experiment, results), layout.MODEL),
        (populations(experiment, results), layout.POPULATION),
        (codes, (".safetensors",)),
        (record_paths(experiment, results), layout.RECORD),
        ([path for path in ends if path.suffix == ".csv"], layout.TABLE),
        ([path for path in ends if path.suffix == ".pdf"], layout.FIGURE),
        ([path for path in ends if path.suffix == ".parquet"], (".parquet",)),
        ([layout.SUMMARY.path(results, experiment=experiment.name)], (".parquet",)),
    ]
    return [path.with_suffix(suffix) for paths, suffixes in families for path in paths for suffix in suffixes]


def downloads(experiment: Experiment, results: Path) -> list[Path]:
    """Returns what the experiment's jobs read from the network: raw files of datasets, and published weights."""
    views = experiment.keys["datasets"].values()
    raw = sorted({layout.FETCH.path(results, source=source_id(view)) for view in views})
    pretrain = experiment.keys.get("pretrain", {})
    if "weights" not in pretrain:
        return raw
    fetched = [name for name in experiment.keys.get("backbones", []) if name not in pretrain.get("files", {})]
    return raw + [published_weights(experiment, results, name) for name in fetched]


def user_files(experiment: Experiment) -> dict[Path, str]:
    """Returns files and folders of the user's that the experiment names, each with the key that names it.

    They are folders of images, and what given models are made of.
    """
    views = experiment.keys["datasets"].items()
    folders = {as_path(view["path"]): f"datasets.{name}.path" for name, view in views if "path" in view}
    return folders | files_of_models(experiment.keys) | _files_of_start(experiment)


def _files_of_start(experiment: Experiment) -> dict[Path, str]:
    """Returns the files that fine-tuning starts from, each with the key that names it."""
    files: dict[Path, str] = {}
    for backbone, local in experiment.keys.get("pretrain", {}).get("files", {}).items():
        files.setdefault(as_path(local["path"]), f"pretrain.files.{backbone}.path")
        if factory := start_factory(experiment, backbone):
            files.setdefault(factory, f"pretrain.files.{backbone}.factory")
    return files


def start_factory(experiment: Experiment, backbone: str) -> Path | None:
    """Returns the file of the factory whose network fine-tuning starts from; None for one that lies in no file."""
    local = local_weights(experiment, backbone) or {}
    return parse_source(local["factory"]).file(Path()) if "factory" in local else None


def published_weights(experiment: Experiment, results: Path, backbone: str) -> Path:
    """Returns where the published weights of a backbone lie once they are fetched."""
    weights = experiment.keys["pretrain"]["weights"]
    return layout.FETCH_WEIGHTS.path(results, ".pth", backbone=backbone, weights=weights)


def weights_file(experiment: Experiment, results: Path, backbone: str) -> Path:
    """Returns the published weights of a backbone: a local file, or the one that is fetched."""
    local = local_weights(experiment, backbone)
    return as_path(local["path"]) if local else published_weights(experiment, results, backbone)


def local_weights(experiment: Experiment, backbone: str) -> dict[str, str] | None:
    """Returns the keys of a local file of weights (path, sha256, and perhaps factory); None without one."""
    local: dict[str, str] | None = experiment.keys.get("pretrain", {}).get("files", {}).get(backbone)
    return local
