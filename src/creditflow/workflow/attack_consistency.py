"""What attacks and the audit of an experiment need of its other sections, so that a worst case means something."""

from collections.abc import Mapping
from typing import Any

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.workflow.consistency import check_listed, networks, trained_datasets


def check_attacks(keys: Mapping[str, Any], where: str) -> None:
    """Checks attacks and audit of an experiment whose names are known. Raises UserError that begins with `where`."""
    known = {key: keys[key] for key in ("rules", "gradients", "seeds")}
    known |= {"datasets": trained_datasets(keys), "backbones": networks(keys)}
    for attack, chosen in keys["attacks"].items():
        place = f"{where}: attacks.{attack}"
        for key, names in known.items():
            for name in chosen.get(key, []):
                check_listed(name, names, key, f"{place}.{key}")
        if "retrieval" in keys:
            continue
        _check_labels(attack, keys, place)
        if plugins.declared("attack", attack, "uses_surrogate", False):
            _check_surrogates(chosen, keys, place)
    shown = [(kind, name) for kind in ("table", "figure") for name in keys[f"{kind}s"]]
    audited = [name for kind, name in shown if plugins.declared(kind, name, "source", "summary") == "audit"]
    if audited and "audit" not in keys:
        raise UserError(f"{where}: {audited[0]} shows the audit; add `audit`")
    if "audit" in keys:
        _check_audit(keys, keys["audit"], f"{where}: audit")


def _check_surrogates(chosen: Mapping[str, Any], keys: Mapping[str, Any], place: str) -> None:
    if "bp" not in keys["rules"]:
        raise UserError(f"{place}: transfers from the model that `bp` trained; add `bp` to `rules`")
    for name, variant in keys.get("population", {}).get("variants", {}).items():
        for dataset, rates in variant.get("learning_rates", {}).items():
            attacked = name in chosen.get("backbones", [name]) and dataset in chosen.get("datasets", [dataset])
            if attacked and "bp" not in rates:
                problem = f"which {name} has no learning rates for on {dataset}"
                raise UserError(f"{place}: transfers from the model that `bp` trained, {problem}")


def _check_labels(attack: str, keys: Mapping[str, Any], place: str) -> None:
    if plugins.declared("attack", attack, "multi_label", False):
        return
    for dataset in keys["attacks"][attack].get("datasets", trained_datasets(keys)):
        source = keys["datasets"][dataset]["source"]
        if plugins.declared("dataset", source, "multi_label", False):
            problem = f"images of {dataset} may have several labels, which this attack does not know"
            raise UserError(f"{place}: {problem}; leave it out of `datasets`")


def _check_audit(keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    if "bp" not in keys["rules"]:
        raise UserError(f"{where}: rules are compared with `bp`; add it to `rules`")
    claim = audit["claim"]
    if claim not in audit["attacks"]:
        raise UserError(f"{where}.claim: {claim!r} is not under `audit.attacks`")
    for attack in audit["attacks"]:
        check_listed(attack, sorted(keys["attacks"]), "attacks", f"{where}.attacks")
        if plugins.declared("attack", attack, "norm") != plugins.declared("attack", claim, "norm"):
            raise UserError(f"{where}.attacks: {attack} bounds another norm than {claim}; a worst case needs one norm")
        _check_audited(attack, keys, audit, f"{where}.attacks: {attack}")
    if not plugins.declared("attack", claim, "uses_gradient") or "rules" in keys["attacks"][claim]:
        raise UserError(f"{where}.claim: {claim} must use a gradient and attack every rule")
    with_gradient = [name for name in audit["attacks"] if plugins.declared("attack", name, "uses_gradient")]
    if not any("exact" in _gradients(keys, name) for name in with_gradient):
        raise UserError(f"{where}.attacks: none uses the exact gradient, without which a hidden one cannot be told")


def _check_audited(attack: str, keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    chosen = keys["attacks"][attack]
    attacked = set(chosen.get("rules", keys["rules"]))
    only_feedback = plugins.declared("attack", attack, "uses_gradient") and _gradients(keys, attack) == ["feedback"]
    # An attack through feedback weights may be for some rules only, as BP's feedback weights are its own.
    if attacked != set(keys["rules"]) and ("bp" in attacked or not only_feedback):
        raise UserError(f"{where} does not attack every rule, so that worst cases would not compare")
    for key in ("datasets", "backbones"):
        if chosen.get(key) != keys["attacks"][audit["claim"]].get(key):
            raise UserError(
                f"{where} and {audit['claim']} have different `{key}`, so that worst cases would not compare"
            )
    if set(chosen.get("seeds", keys["seeds"])) != set(keys["seeds"]):
        raise UserError(f"{where} leaves out seeds, so that worst cases would not compare")
    if plugins.declared("attack", attack, "uses_surrogate", False) and _fewest_bp_seeds(keys) == 1:
        raise UserError(f"{where} needs a second seed, for a BP model that is not the one it attacks")
    for epsilon in audit["epsilons"]:
        if epsilon not in chosen["epsilons"]:
            raise UserError(f"{where} has no epsilon {epsilon}; it has {chosen['epsilons']}")


def _gradients(keys: Mapping[str, Any], attack: str) -> list[str]:
    gradients: list[str] = keys["attacks"][attack].get("gradients", keys["gradients"])
    return gradients


def _fewest_bp_seeds(keys: Mapping[str, Any]) -> int:
    """Returns the least number of seeds that backpropagation trains any network with."""
    variants = keys.get("population", {}).get("variants", {}).values()
    return min([len(keys["seeds"]), *(len(variant.get("seeds", keys["seeds"])) for variant in variants)])
