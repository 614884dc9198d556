"""What a schema cannot say of an experiment: names, references between sections, what a worst case needs."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.plugins import suggestion
from creditflow.retrieval.zeta import zeta


def check_keys(keys: Mapping[str, Any], where: str) -> None:
    """Checks one experiment, without the others. Raises UserError, which begins with `where`."""
    _check_training(keys, where)
    _check_names(keys, where)
    if "population" in keys:
        _check_population(keys, where)
    else:
        _check_pretrain(keys, where)
    _check_retrieval(keys, where)
    _check_attacks(keys, where)
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
    """Returns the views that models are trained and measured on."""
    found: list[str] = keys["population" if "population" in keys else "finetune"]["datasets"]
    return found


def networks(keys: Mapping[str, Any]) -> list[str]:
    """Returns what stands for the backbone in paths and records: backbones, or the variants of a population."""
    return list(keys["population"]["variants"]) if "population" in keys else list(keys["backbones"])


#: The two ways to train, and the sections that each needs.
_TRAINING = ("backbones", "pretrain", "finetune")


def _check_training(keys: Mapping[str, Any], where: str) -> None:
    if "population" in keys:
        if surplus := [section for section in (*_TRAINING, "retrieval") if section in keys]:
            raise UserError(
                f"{where}: a population is trained from a random start, for classification; take `{surplus[0]}` away"
            )
    elif lacking := [section for section in _TRAINING if section not in keys]:
        raise UserError(
            f"{where}: '{lacking[0]}' is a required property (or `population`, for networks that are trained many at a time)"
        )


def _check_population(keys: Mapping[str, Any], where: str) -> None:
    section = keys["population"]
    for variant, its in section["variants"].items():
        place = f"{where}: population.variants.{variant}"
        if variant in plugins.names("backbone"):
            raise UserError(f"{place}: that is a backbone's name; choose another")
        for dataset, of_rules in its["learning_rates"].items():
            if dataset not in section["datasets"]:
                known = section["datasets"]
                raise UserError(
                    f"{place}.learning_rates: {dataset!r} is not under `population.datasets`{suggestion(dataset, known)}"
                )
            for rule in of_rules:
                if rule not in keys["rules"]:
                    raise UserError(
                        f"{place}.learning_rates.{dataset}: {rule!r} is not under `rules`{suggestion(rule, keys['rules'])}"
                    )
        for seed in its.get("seeds", []):
            if seed not in keys["seeds"]:
                raise UserError(f"{place}.seeds: {seed} is not under `seeds`")
        for rule, seeds in its.get("rule_seeds", {}).items():
            if rule not in keys["rules"] or rule == "bp":
                raise UserError(f"{place}.rule_seeds: {rule!r} is not a rule that is compared with bp")
            if surplus := set(seeds) - set(its.get("seeds", keys["seeds"])):
                raise UserError(f"{place}.rule_seeds.{rule}: {min(surplus)} is not among the seeds of bp")
        for own in (section["settings"], its.get("settings", {})):
            for dataset in own.get("datasets", {}):
                if dataset not in section["datasets"]:
                    known = section["datasets"]
                    raise UserError(
                        f"{place}: settings.datasets: {dataset!r} is not under `population.datasets`{suggestion(dataset, known)}"
                    )
            for rule in [rule for one in (own, *own.get("datasets", {}).values()) for rule in one.get("rules", {})]:
                if rule not in keys["rules"]:
                    raise UserError(
                        f"{place}: settings.rules: {rule!r} is not under `rules`{suggestion(rule, keys['rules'])}"
                    )
        settings = section["settings"] | its.get("settings", {})
        if lacking := [key for key in ("epochs", "batch_size", "hidden") if key not in settings]:
            raise UserError(f"{place}: {lacking[0]} is missing, here and under population.settings")
        rates = [rates for of_rules in its["learning_rates"].values() for rates in of_rules.values()]
        if settings.get("select") == "last" and max(map(len, rates)) > 1:
            raise UserError(
                f"{place}: select: last chooses nothing, but there are several learning rates; give one, or select by accuracy"
            )
        nothing_held_out = (
            settings.get("validation_images") == 0 and settings.get("select_on", "validation") == "validation"
        )
        if nothing_held_out and settings.get("select") != "last":
            raise UserError(
                f"{place}: validation_images is 0, but something is to be selected; hold images out, or say select: last"
            )
    if keys["gradients"] != ["exact"]:
        raise UserError(f"{where}: gradients: the attacker differentiates a population's networks exactly; say [exact]")


def _check_retrieval(keys: Mapping[str, Any], where: str) -> None:
    if "retrieval" not in keys:
        return
    datasets = keys["finetune"]["datasets"]
    for section in ("protocols", "tops"):
        for name in keys["retrieval"].get(section, {}):
            if name not in datasets:
                raise UserError(
                    f"{where}: retrieval.{section}: {name!r} is not under `finetune.datasets`{suggestion(name, datasets)}"
                )
    if lacking := [name for name in datasets if name not in keys["retrieval"]["protocols"]]:
        raise UserError(f"{where}: retrieval.protocols: {lacking[0]} has no protocol")
    for name, protocol in keys["retrieval"]["protocols"].items():
        _check_protocol(protocol, f"{where}: retrieval.protocols.{name}")
    if "zeta" not in keys["retrieval"].get("loss", {}):
        try:
            zeta(keys["retrieval"]["bits"], 2)
        except UserError as error:
            raise UserError(f"{where}: retrieval.bits: {error}") from None
    if "audit" in keys:
        raise UserError(f"{where}: audit: it compares accuracies, which retrieval has none of; take it away")


def _check_protocol(protocol: Mapping[str, Any], where: str) -> None:
    counts = [name for name in ("query", "train") if name in protocol]
    if protocol["kind"] == "lists" and (counts or "query_from" in protocol):
        raise UserError(f"{where}: lists draw nothing; take {', '.join([*counts, 'query_from'][:1])} away")
    if protocol["kind"] != "lists" and len(counts) < 2:
        raise UserError(f"{where}: say how many images to draw: query and train")


def _check_names(keys: Mapping[str, Any], where: str) -> None:
    """Checks every id against the plugins, and every reference between sections."""
    used = {
        "backbones": ("backbone", keys.get("backbones", [])),
        "rules": (rule_kind(keys), keys["rules"]),
        "attacks": (attack_kind(keys), keys["attacks"]),
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
    mentioned = {
        "pretrain.dataset": [keys["pretrain"]["dataset"]] if "dataset" in keys.get("pretrain", {}) else [],
        "finetune.overrides": list(keys.get("finetune", {}).get("overrides", {})),
        "population.datasets" if "population" in keys else "finetune.datasets": trained_datasets(keys),
    }
    for section, names in mentioned.items():
        for name in names:
            if name not in keys["datasets"]:
                raise UserError(
                    f"{where}: {section}: {name!r} is not under `datasets`{suggestion(name, sorted(keys['datasets']))}"
                )
    # Overrides may be another experiment's, of whose datasets this one takes a part.
    for name in {} if "extends" in keys else keys.get("finetune", {}).get("overrides", {}):
        if name not in trained_datasets(keys):
            raise UserError(
                f"{where}: finetune.overrides: {name!r} is not under `finetune.datasets`, so nothing is fine-tuned on it"
            )


#: The ways to begin, and what else each needs.
_STARTS = {"dataset": ["settings"], "weights": [], "experiment": [], "start": []}


def _check_pretrain(keys: Mapping[str, Any], where: str) -> None:
    pretrain = keys["pretrain"]
    chosen = [start for start in _STARTS if start in pretrain]
    if len(chosen) != 1:
        raise UserError(
            f"{where}: pretrain: give one of {', '.join(_STARTS)}, not {' and '.join(chosen) or 'none of them'}"
        )
    for needed in _STARTS[chosen[0]]:
        if needed not in pretrain:
            raise UserError(f"{where}: pretrain: {needed} is missing")
    if "files" in pretrain and chosen != ["weights"]:
        raise UserError(f"{where}: pretrain: `files` are local copies of `weights`; name the weights, too")
    for section, named in (
        ("pretrain.files", pretrain.get("files", {})),
        ("input.backbones", keys.get("input", {}).get("backbones", {})),
    ):
        for backbone in named:
            try:
                plugins.check("backbone", backbone)
            except UserError as error:
                raise UserError(f"{where}: {section}: {error}") from None


def input_of(keys: Mapping[str, Any], backbone: str) -> dict[str, Any]:
    """Returns what a backbone sees of the images: the experiment's `input`, and what differs for it."""
    common = {key: value for key, value in keys.get("input", {}).items() if key != "backbones"}
    own: dict[str, Any] = keys.get("input", {}).get("backbones", {}).get(backbone, {})
    return common | own


def check_lender(keys: Mapping[str, Any], experiments: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Checks that the experiment whose pretrained models this one uses makes them. Raises UserError."""
    name = keys.get("pretrain", {}).get("experiment")
    if name is None:
        return
    if name not in experiments:
        raise UserError(
            f"{where}: pretrain.experiment: unknown experiment {name!r}{suggestion(name, sorted(experiments))}"
        )
    lender = experiments[name]
    if not {"dataset", "weights"} & lender.get("pretrain", {}).keys():
        raise UserError(f"{where}: pretrain.experiment: {name!r} does not pretrain models itself")
    for backbone in keys["backbones"]:
        if input_of(lender, backbone) != input_of(keys, backbone):
            raise UserError(
                f"{where}: pretrain.experiment: {backbone} has another `input` in {name!r}; give both the same"
            )
    for key in ("backbones", "seeds"):
        lacking = [str(one) for one in keys[key] if one not in lender[key]]
        if lacking and not (key == "seeds" and "weights" in lender["pretrain"]):
            raise UserError(f"{where}: pretrain.experiment: {name!r} has no {key} {', '.join(lacking)}")


def _check_attacks(keys: Mapping[str, Any], where: str) -> None:
    """Checks what the schema cannot say of attacks and the audit."""
    for attack, its in keys["attacks"].items():
        place = f"{where}: attacks.{attack}"
        if any(later <= earlier for earlier, later in pairwise(its["epsilons"])):
            raise UserError(f"{place}.epsilons: {its['epsilons']} must rise")
        everything = {key: keys[key] for key in ("rules", "gradients", "seeds")}
        for key, known in (everything | {"datasets": trained_datasets(keys), "backbones": networks(keys)}).items():
            for name in its.get(key, []):
                if name not in known:
                    raise UserError(
                        f"{place}.{key}: {name!r} is not under `{key}`{suggestion(str(name), list(map(str, known)))}"
                    )
        if "retrieval" in keys:
            continue
        _check_labels(attack, keys, place)
        if plugins.declared("attack", attack, "uses_surrogate", False):
            _check_surrogates(its, keys, place)
    audited = [
        name
        for kind in ("table", "figure")
        for name in keys[f"{kind}s"]
        if plugins.declared(kind, name, "source", "summary") == "audit"
    ]
    if audited and "audit" not in keys:
        raise UserError(f"{where}: {audited[0]} shows the audit; add `audit`")
    if "audit" in keys:
        _check_audit(keys, keys["audit"], f"{where}: audit")


def _check_surrogates(its: Mapping[str, Any], keys: Mapping[str, Any], place: str) -> None:
    if "bp" not in keys["rules"]:
        raise UserError(f"{place}: transfers from the model that `bp` trained; add `bp` to `rules`")
    for name, variant in keys.get("population", {}).get("variants", {}).items():
        for dataset, rates in variant.get("learning_rates", {}).items():
            met = name in its.get("backbones", [name]) and dataset in its.get("datasets", [dataset])
            if met and "bp" not in rates:
                raise UserError(
                    f"{place}: transfers from the model that `bp` trained, which {name} has no learning rates for on {dataset}"
                )


def _check_labels(attack: str, keys: Mapping[str, Any], place: str) -> None:
    if plugins.declared("attack", attack, "multi_label", False):
        return
    for dataset in keys["attacks"][attack].get("datasets", trained_datasets(keys)):
        source = keys["datasets"][dataset]["source"]
        if plugins.declared("dataset", source, "multi_label", False):
            raise UserError(
                f"{place}: images of {dataset} may have several labels, which this attack does not know; leave it out of `datasets`"
            )


def _check_audit(keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    if "bp" not in keys["rules"]:
        raise UserError(f"{where}: rules are compared with `bp`; add it to `rules`")
    claim = audit["claim"]
    if claim not in audit["attacks"]:
        raise UserError(f"{where}.claim: {claim!r} is not under `audit.attacks`")
    for attack in audit["attacks"]:
        if attack not in keys["attacks"]:
            raise UserError(
                f"{where}.attacks: {attack!r} is not under `attacks`{suggestion(attack, sorted(keys['attacks']))}"
            )
        if plugins.declared("attack", attack, "norm") != plugins.declared("attack", claim, "norm"):
            raise UserError(f"{where}.attacks: {attack} bounds another norm than {claim}; a worst case needs one norm")
        _check_audited(attack, keys, audit, f"{where}.attacks: {attack}")
    if not plugins.declared("attack", claim, "uses_gradient") or "rules" in keys["attacks"][claim]:
        raise UserError(f"{where}.claim: {claim} must use a gradient and attack every rule")
    exact = [
        name
        for name in audit["attacks"]
        if plugins.declared("attack", name, "uses_gradient") and "exact" in _gradients(keys, name)
    ]
    if not exact:
        raise UserError(f"{where}.attacks: none uses the exact gradient, without which a hidden one cannot be told")


def _check_audited(attack: str, keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    its = keys["attacks"][attack]
    met = set(its.get("rules", keys["rules"]))
    only_feedback = plugins.declared("attack", attack, "uses_gradient") and _gradients(keys, attack) == ["feedback"]
    # An attack through feedback weights may be for some rules only, as BP's feedback weights are its own.
    if met != set(keys["rules"]) and ("bp" in met or not only_feedback):
        raise UserError(f"{where} does not attack every rule, so that worst cases would not compare")
    for key in ("datasets", "backbones"):
        if its.get(key) != keys["attacks"][audit["claim"]].get(key):
            raise UserError(
                f"{where} and {audit['claim']} have different `{key}`, so that worst cases would not compare"
            )
    if set(its.get("seeds", keys["seeds"])) != set(keys["seeds"]):
        raise UserError(f"{where} leaves out seeds, so that worst cases would not compare")
    variants = keys.get("population", {}).get("variants", {}).values()
    fewest = min(len(one.get("rule_seeds", {}).get("bp", one.get("seeds", keys["seeds"]))) for one in [*variants, {}])
    if plugins.declared("attack", attack, "uses_surrogate", False) and fewest == 1:
        raise UserError(f"{where} needs a second seed, for a BP model that is not the one it attacks")
    for epsilon in audit["epsilons"]:
        if epsilon not in its["epsilons"]:
            raise UserError(f"{where} has no epsilon {epsilon}; it has {its['epsilons']}")


def _gradients(keys: Mapping[str, Any], attack: str) -> list[str]:
    found: list[str] = keys["attacks"][attack].get("gradients", keys["gradients"])
    return found
