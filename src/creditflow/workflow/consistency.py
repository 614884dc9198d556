"""What the model of an experiment cannot say: names of plugins, and references between sections."""

from collections.abc import Iterable, Mapping
from typing import Any

from creditflow.core import plugins
from creditflow.core.backbones import has_published
from creditflow.core.errors import UserError, suggestion
from creditflow.core.given import GIVEN_MODELS
from creditflow.workflow.given_models import given


def check_keys(keys: Mapping[str, Any], where: str) -> None:
    """Checks one experiment, without the others. Raises UserError, which begins with `where`."""
    _check_names(keys, where)
    if "population" in keys:
        _check_population(keys, where)
    elif not given(keys):
        _check_pretrain(keys, where)
    _check_retrieval(keys, where)
    _check_upsample(keys, where)
    for rule in keys.get("nullspace", {}):
        if rule not in (known := plugins.names("update_rule")):
            raise UserError(f"{where}: nullspace: unknown rule {rule!r}{suggestion(rule, known)}")


def attack_kind(keys: Mapping[str, Any]) -> str:
    """Returns the kind of plugin that the experiment's attacks are: retrieval has its own."""
    return "hash_attack" if "retrieval" in keys else "attack"


def rule_kind(keys: Mapping[str, Any]) -> str:
    """Returns the kind of plugin that the experiment's rules are: populations have their own."""
    return "update_rule" if "population" in keys else "rule"


def trained_datasets(keys: Mapping[str, Any]) -> list[str]:
    """Returns the views that models are trained and measured on; given models are measured on all."""
    if given(keys):
        return list(keys["datasets"])
    datasets: list[str] = keys["population" if "population" in keys else "finetune"]["datasets"]
    return datasets


def networks(keys: Mapping[str, Any]) -> list[str]:
    """Returns what stands for the backbone in paths and records: backbones, or the variants of a population.

    For given models it is one name.
    """
    if given(keys):
        return [GIVEN_MODELS]
    return list(keys["population"]["variants"]) if "population" in keys else list(keys["backbones"])


#: The backbone whose network a factory of the user's makes.
BY_FACTORY = "from_factory"

#: The sections that a training needs, beside `rules`.
_TRAINING = ("backbones", "pretrain", "finetune")


def check_training(keys: Mapping[str, Any], where: str) -> None:
    """Checks that networks are trained in one of the two ways, or given. Raises UserError that begins with `where`."""
    if given(keys):
        if surplus := [name for name in ("rules", "population", *_TRAINING, "retrieval", "nullspace") if name in keys]:
            problem = "given `models` are classifiers, and nothing is trained"
            raise UserError(f"{where}: {problem}; take `{surplus[0]}` away")
        return
    if "rules" not in keys:
        raise UserError(f"{where}: rules is missing (or `models`, for networks that are there already)")
    if "population" in keys:
        if surplus := [section for section in (*_TRAINING, "retrieval") if section in keys]:
            problem = "a population is trained from a random start, for classification"
            raise UserError(f"{where}: {problem}; take `{surplus[0]}` away")
    elif lacking := [section for section in _TRAINING if section not in keys]:
        alternative = "(or `population`, for networks that are trained many at a time)"
        raise UserError(f"{where}: {lacking[0]} is missing {alternative}")


def _check_population(keys: Mapping[str, Any], where: str) -> None:
    section = keys["population"]
    for name, variant in section["variants"].items():
        place = f"{where}: population.variants.{name}"
        if name in plugins.names("backbone"):
            raise UserError(f"{place}: that is a backbone's name; choose another")
        _check_learning_rates(variant, keys, place)
        _check_seeds(variant, keys, place)
        for settings in (section["settings"], variant.get("settings", {})):
            _check_parts(settings, keys, place)
        select = variant.get("settings", {}).get("select", section["settings"].get("select"))
        rates = [rates for of_rules in variant["learning_rates"].values() for rates in of_rules.values()]
        if select == "last" and max(map(len, rates)) > 1:
            problem = "select: last chooses nothing, but there are several learning rates"
            raise UserError(f"{place}: {problem}; give one, or select by accuracy")
    if "feedback" in keys["gradients"]:
        problem = "update rules train without feedback weights that an attacker could use"
        raise UserError(f"{where}: gradients: {problem}; take feedback away")


def _check_learning_rates(variant: Mapping[str, Any], keys: Mapping[str, Any], place: str) -> None:
    for dataset, of_rules in variant["learning_rates"].items():
        check_listed(dataset, keys["population"]["datasets"], "population.datasets", f"{place}.learning_rates")
        for rule in of_rules:
            check_listed(rule, keys["rules"], "rules", f"{place}.learning_rates.{dataset}")


def _check_seeds(variant: Mapping[str, Any], keys: Mapping[str, Any], place: str) -> None:
    for seed in variant.get("seeds", []):
        if seed not in keys["seeds"]:
            raise UserError(f"{place}.seeds: {seed} is not under `seeds`")
    for rule, seeds in variant.get("rule_seeds", {}).items():
        if rule not in keys["rules"] or rule == "bp":
            raise UserError(f"{place}.rule_seeds: {rule!r} is not a rule that is compared with bp")
        if surplus := set(seeds) - set(variant.get("seeds", keys["seeds"])):
            raise UserError(f"{place}.rule_seeds.{rule}: {min(surplus)} is not among the seeds of bp")


def _check_parts(settings: Mapping[str, Any], keys: Mapping[str, Any], place: str) -> None:
    """Checks the names of datasets and rules for which settings of a population differ."""
    for dataset in settings.get("datasets", {}):
        check_listed(dataset, keys["population"]["datasets"], "population.datasets", f"{place}: settings.datasets")
    for part in (settings, *settings.get("datasets", {}).values()):
        for rule in part.get("rules", {}):
            check_listed(rule, keys["rules"], "rules", f"{place}: settings.rules")


def check_listed(name: str, known: Iterable[Any], section: str, place: str) -> None:
    """Raises UserError, with the nearest name, unless a name is among those that are known from another section."""
    if name not in known:
        raise UserError(f"{place}: {name!r} is not under `{section}`{suggestion(str(name), list(map(str, known)))}")


def _check_retrieval(keys: Mapping[str, Any], where: str) -> None:
    if "retrieval" not in keys:
        return
    datasets = keys["finetune"]["datasets"]
    for section in ("protocols", "tops"):
        for name in keys["retrieval"].get(section, {}):
            check_listed(name, datasets, "finetune.datasets", f"{where}: retrieval.{section}")
    if lacking := [name for name in datasets if name not in keys["retrieval"]["protocols"]]:
        raise UserError(f"{where}: retrieval.protocols: {lacking[0]} has no protocol")


def named_plugins(keys: Mapping[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """Returns kind and ids of the plugins that the sections of an experiment name, by section."""
    return {
        "backbones": ("backbone", keys.get("backbones", [])),
        "rules": (rule_kind(keys), [] if given(keys) else keys["rules"]),
        "attacks": (attack_kind(keys), list(keys["attacks"])),
        "tables": ("table", list(keys["tables"])),
        "figures": ("figure", list(keys["figures"])),
        "datasets": ("dataset", [view["source"] for view in keys["datasets"].values()]),
    }


def _check_names(keys: Mapping[str, Any], where: str) -> None:
    """Checks every id against the plugins, and every reference to `datasets`."""
    for section, (kind, names) in named_plugins(keys).items():
        _check_plugins(kind, names, f"{where}: {section}")
    overrides = keys.get("finetune", {}).get("overrides", {})
    mentioned = {
        "pretrain.dataset": [keys["pretrain"]["dataset"]] if "dataset" in keys.get("pretrain", {}) else [],
        "finetune.overrides": list(overrides),
        "population.datasets" if "population" in keys else "finetune.datasets": trained_datasets(keys),
    }
    for section, names in mentioned.items():
        for name in names:
            check_listed(name, sorted(keys["datasets"]), "datasets", f"{where}: {section}")
    _check_matched(keys, f"{where}: finetune.matched")
    _check_folders(keys, f"{where}: datasets")
    # Overrides may be another experiment's, of whose datasets this one takes a part.
    for name in {} if "extends" in keys else overrides:
        if name not in trained_datasets(keys):
            problem = f"{name!r} is not under `finetune.datasets`, so nothing is fine-tuned on it"
            raise UserError(f"{where}: finetune.overrides: {problem}")


def _check_folders(keys: Mapping[str, Any], place: str) -> None:
    """Raises UserError for a dataset in a folder that is not named, and for a folder of another dataset."""
    for name, view in keys["datasets"].items():
        source, key = view["source"], "path" if "path" in view else "split"
        if plugins.declared("dataset", source, "named_folder", False):
            if "path" not in view:
                raise UserError(f"{place}.{name}: path is missing; name the folder of the images")
        elif key in view:
            raise UserError(f"{place}.{name}.{key} has no effect: {source} lies in no folder of yours; take it away")


def _check_matched(keys: Mapping[str, Any], place: str) -> None:
    """Raises UserError for networks that cannot be matched in accuracy."""
    matched = keys.get("finetune", {}).get("matched", [])
    if matched and "retrieval" in keys:
        raise UserError(f"{place}: it matches accuracies, which retrieval has none of; take it away")
    for rule in matched:
        if rule == "bp":
            raise UserError(f"{place}: bp itself is what is matched to other rules; take it away")
        check_listed(rule, [name for name in keys["rules"] if name != "bp"], "rules", place)


def _check_plugins(kind: str, names: Iterable[str], place: str) -> None:
    for name in names:
        try:
            plugins.check(kind, name)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None


#: The ways to begin, and what else each needs.
_STARTS = {"dataset": ["settings"], "weights": [], "files": [], "experiment": [], "start": []}


def imports(pretrain: Mapping[str, Any]) -> bool:
    """Returns whether fine-tuning starts from weights that are published, or in files of the user's."""
    return "experiment" not in pretrain and ("weights" in pretrain or bool(pretrain.get("files")))


def _check_pretrain(keys: Mapping[str, Any], where: str) -> None:
    pretrain, place = keys["pretrain"], f"{where}: pretrain"
    chosen = [start for start in _STARTS if pretrain.get(start)]
    if len(chosen) != 1 and chosen != ["weights", "files"]:
        raise UserError(f"{place}: give one of {', '.join(_STARTS)}, not {' and '.join(chosen) or 'none of them'}")
    for needed in _STARTS[chosen[0]]:
        if needed not in pretrain:
            raise UserError(f"{place}: {needed} is missing")
    _check_plugins("backbone", pretrain.get("files", {}), f"{place}.files")
    for backbone in keys["backbones"]:
        if "weights" in pretrain and not has_published(backbone):
            raise UserError(
                f"{place}: there are no published weights of the backbone {backbone!r}, so `weights` cannot name any;"
                " pretrain it on a `dataset`, or start from another experiment's models"
            )
        if imports(pretrain):
            _check_file_of(keys, backbone, place)
    _check_plugins("backbone", keys.get("input", {}).get("backbones", {}), f"{where}: input.backbones")


def _check_file_of(keys: Mapping[str, Any], backbone: str, place: str) -> None:
    """Raises UserError if a backbone's file of weights is missing, or lacks what belongs to it."""
    local = keys["pretrain"].get("files", {}).get(backbone)
    if local is None:
        if "weights" not in keys["pretrain"]:
            raise UserError(f"{place}.files: {backbone} is missing; name the file of its weights, or give `weights`")
        return
    if ("factory" in local) != (backbone == BY_FACTORY):
        problem = "the factory of its network is missing" if backbone == BY_FACTORY else "it is not made by a factory"
        raise UserError(f"{place}.files.{backbone}: {problem}; `factory` goes with the backbone {BY_FACTORY}")
    if has_published(backbone) and "weights" not in keys["pretrain"]:
        raise UserError(
            f"{place}.files.{backbone}: name the `weights` that they are, too, for their mean and deviation"
        )
    if not has_published(backbone) and not {"size", "upsample"} & input_of(keys, backbone).keys():
        raise UserError(f"{place}.files.{backbone}: the size of its images is not known; give input.size")


def input_of(keys: Mapping[str, Any], backbone: str) -> dict[str, Any]:
    """Returns what a backbone sees of the images: the experiment's `input`, and what differs for it."""
    common = {key: value for key, value in keys.get("input", {}).items() if key != "backbones"}
    different: dict[str, Any] = keys.get("input", {}).get("backbones", {}).get(backbone, {})
    return common | different


def _check_upsample(keys: Mapping[str, Any], where: str) -> None:
    """Raises UserError where images are to be enlarged by networks that cannot be given that layer."""
    for network in networks(keys) if given(keys) or "population" in keys else []:
        if "upsample" in input_of(keys, network):
            whose = "its factory can enlarge them" if given(keys) else "a population takes them as they are"
            raise UserError(f"{where}: input.upsample: a network of the project's backbones enlarges images; {whose}")


def check_lender(keys: Mapping[str, Any], name: str, lender: Mapping[str, Any], where: str) -> None:
    """Checks that the experiment `name`, whose pretrained models this one uses, makes them. Raises UserError."""
    if "dataset" not in lender.get("pretrain", {}) and not imports(lender.get("pretrain", {})):
        raise UserError(f"{where}: {name!r} does not pretrain models itself")
    for backbone in keys["backbones"]:
        if input_of(lender, backbone) != input_of(keys, backbone):
            raise UserError(f"{where}: {backbone} has another `input` in {name!r}; give both the same")
    for key in ("backbones", "seeds"):
        lacking = [str(value) for value in keys[key] if value not in lender[key]]
        if lacking and not (key == "seeds" and imports(lender["pretrain"])):
            raise UserError(f"{where}: {name!r} has no {key} {', '.join(lacking)}")
