"""What attacks and the audit of an experiment need of its other sections, so that a worst case means something."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from creditflow.attacks.kinds import missing, needs_surrogate, required_of
from creditflow.core import plugins
from creditflow.core.errors import UserError, suggestion
from creditflow.core.gradients import parse_gradient
from creditflow.core.matched import controls_of
from creditflow.workflow.consistency import attack_kind, check_listed, networks, trained_datasets
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.given_models import given, reference_of


def check_attacks(keys: Mapping[str, Any], where: str) -> None:
    """Checks attacks and audit of an experiment whose names are known. Raises UserError that begins with `where`."""
    known = {key: keys[key] for key in ("rules", "gradients", "seeds")}
    known["rules"] = [*keys["rules"], *controls_of(keys)]
    known |= {"datasets": trained_datasets(keys), "backbones": networks(keys)}
    _check_gradients(keys, where)
    for attack, chosen in keys["attacks"].items():
        place = f"{where}: attacks.{attack}"
        for key, names in known.items():
            for name in chosen.get(key, []):
                check_listed(name, names, _section(keys, key), f"{place}.{key}")
        _check_parts(attack, chosen, keys, place)
        if "retrieval" not in keys:
            _check_labels(attack, keys, place)
            _check_surrogates(attack, Experiment("", keys), place)
    shown = [(kind, name) for kind in ("table", "figure") for name in keys[f"{kind}s"]]
    audited = [name for kind, name in shown if plugins.declared(kind, name, "source", "summary") == "audit"]
    if audited and "audit" not in keys:
        raise UserError(f"{where}: {audited[0]} shows the audit; add `audit`")
    _check_why(keys, where)
    if "audit" in keys:
        _check_audit(keys, keys["audit"], f"{where}: audit")


def _section(keys: Mapping[str, Any], key: str) -> str:
    """Returns the section that lists what a key of an attack chooses from."""
    return "models" if key == "rules" and given(keys) else key


def _check_why(keys: Mapping[str, Any], where: str) -> None:
    """Raises UserError for gradients, rules and seeds that can't be measured."""
    why = keys.get("why", {})
    if why and "retrieval" in keys:
        raise UserError(f"{where}: why: it measures classifiers, and this experiment retrieves; take `why` away")
    if why and "exact" not in why["gradients"]:
        raise UserError(f"{where}: why.gradients: the others are compared with the exact gradient; add exact")
    if why and "population" in keys and "feedback" in why["gradients"]:
        problem = "update rules train without feedback weights that an attacker could use"
        raise UserError(f"{where}: why.gradients: {problem}; take feedback away")
    for key in ("rules", "seeds"):
        for name in why.get(key, []):
            check_listed(name, keys[key], _section(keys, key), f"{where}: why.{key}")


def _check_gradients(keys: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a gradient through a rule that has no feedback weights of its own, and for a gradient that
    networks of this kind have not."""
    for section, name in _named_gradients(keys):
        rule, place = parse_gradient(name).rule, f"{where}: {section}: {name}"
        if name == "own" and not given(keys):
            raise UserError(f"{place}: it is that of given `models`; say exact or feedback")
        if name == "feedback" and given(keys):
            raise UserError(f"{place}: it is that of rules, which no given model has; say own")
        if not rule:
            continue
        if rule not in (known := plugins.names("rule")):
            updates = "an update rule, which gives layers no feedback weights"
            problem = f"{rule!r} is {updates}" if rule in plugins.names("update_rule") else f"unknown rule {rule!r}"
            raise UserError(f"{place}: {problem}{suggestion(rule, known)}")
        if plugins.declared("rule", rule, "exact", False):
            raise UserError(f"{place}: the feedback of {rule} is the exact gradient; say exact")


def _named_gradients(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (("gradients", name) for name in keys["gradients"])
    yield from (("why.gradients", name) for name in keys.get("why", {}).get("gradients", []))


def _check_parts(attack: str, chosen: Mapping[str, Any], keys: Mapping[str, Any], place: str) -> None:
    """Raises UserError for `for_gradients`, `keep` and `twin` that fit no gradient, no image and no surrogate."""
    kind = attack_kind(keys)
    gradients = _gradients(keys, attack) if plugins.declared(kind, attack, "uses_gradient") else []
    groups = sorted({*gradients, *("through" for name in gradients if parse_gradient(name).rule)})
    for name in chosen.get("for_gradients", {}):
        if name not in groups:
            known = suggestion(name, groups) if groups else "; it uses no gradient"
            raise UserError(f"{place}.for_gradients: the attack does not use {name!r}{known}")
    if chosen.get("keep", 0) and kind == "hash_attack":
        raise UserError(f"{place}.keep has no effect: attacks of retrieval keep what `retrieved` shows; leave it out")
    for rule in chosen.get("rules", keys["rules"] if len(keys["rules"]) == 1 else []):
        if gradients and not Experiment("", keys).gradients_of(attack, rule):
            raise UserError(f"{place}: the feedback of {rule} is its exact gradient; say exact, or leave {rule} out")
    fewest = min(_of_gradient(keys, attack, name)["images"] for name in gradients or ["none"])
    if chosen.get("keep", 0) > fewest:
        raise UserError(f"{place}.keep: {chosen['keep']} images are kept, but only {fewest} are attacked")
    if "twin" in chosen and not (kind == "attack" and plugins.declared(kind, attack, "uses_surrogate", False)):
        raise UserError(f"{place}.twin has no effect: this attack transfers no images; leave it out")


def _of_gradient(keys: Mapping[str, Any], attack: str, gradient: str) -> dict[str, Any]:
    return Experiment("", keys).attack(attack, gradient)


def _check_surrogates(attack: str, experiment: Experiment, place: str) -> None:
    """Raises UserError if an attack that transfers images lacks a surrogate of some model."""
    keys = experiment.keys
    chosen, gradients = keys["attacks"][attack], _gradients(keys, attack)
    used = [experiment.attack(attack, name).get("settings", {}) for name in gradients]
    if not any(needs_surrogate(attack, settings) for settings in used):
        return
    if experiment.reference is None:
        advice = "mark a model with `reference: true`" if given(keys) else "add `bp` to `rules`"
        whose = "the reference" if given(keys) else "the model that `bp` trained"
        raise UserError(f"{place}: transfers from {whose}; {advice}")
    if "twin" in chosen:
        others = [rule for rule in keys["rules"] if rule != experiment.reference]
        check_listed(chosen["twin"], others, _section(keys, "rules"), f"{place}.twin")
    for dataset in chosen.get("datasets", experiment.datasets):
        for network in chosen.get("backbones", experiment.networks):
            if given(keys):
                _check_twins(attack, experiment, dataset, network, keys["rules"], place)
            elif experiment.rules_of(dataset, network):
                _check_models_of_bp(attack, experiment, dataset, network, place)


def _check_models_of_bp(attack: str, experiment: Experiment, dataset: str, network: str, place: str) -> None:
    if "bp" not in experiment.rules_of(dataset, network):
        problem = f"which {network} has no learning rates for on {dataset}"
        raise UserError(f"{place}: transfers from the model that `bp` trained, {problem}")
    if len(experiment.seeds_of(network, "bp")) == 1:
        raise UserError(f"{place}: transfers from `bp` of another seed, but {network} has one seed; add a second one")
    _check_twins(attack, experiment, dataset, network, ["bp"], place)


def _check_twins(
    attack: str, experiment: Experiment, dataset: str, network: str, rules: Sequence[str], place: str
) -> None:
    """Raises UserError if a model that one of these rules trained, and that is attacked, has no surrogate."""
    chosen = experiment.keys["attacks"][attack]
    for rule in rules if "rules" not in chosen else [rule for rule in rules if rule in chosen["rules"]]:
        for seed in experiment.seeds_of(network, rule):
            if seed in chosen.get("seeds", [seed]):
                try:
                    experiment.surrogates((dataset, network, rule, seed), attack)
                except UserError as error:
                    raise UserError(f"{place}: {error}") from None


def _check_labels(attack: str, keys: Mapping[str, Any], place: str) -> None:
    if plugins.declared("attack", attack, "multi_label", False):
        return
    for dataset in keys["attacks"][attack].get("datasets", trained_datasets(keys)):
        source = keys["datasets"][dataset]["source"]
        if plugins.declared("dataset", source, "multi_label", False):
            problem = f"images of {dataset} may have several labels, which this attack does not know"
            raise UserError(f"{place}: {problem}; leave it out of `datasets`")


def _check_audit(keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    if reference_of(keys) is None:
        raise UserError(f"{where}: rules are compared with `bp`; add it to `rules`")
    if audit.get("reference", "bp") == "matched":
        _check_matched(keys, f"{where}.reference")
    for dataset in audit.get("datasets", []):
        check_listed(dataset, trained_datasets(keys), "datasets", f"{where}.datasets")
    kind, claim = attack_kind(keys), audit["claim"]
    if claim not in audit["attacks"]:
        raise UserError(f"{where}.claim: {claim!r} is not under `audit.attacks`")
    for attack in audit["attacks"]:
        check_listed(attack, sorted(keys["attacks"]), "attacks", f"{where}.attacks")
        if plugins.declared(kind, attack, "norm") != plugins.declared(kind, claim, "norm"):
            raise UserError(f"{where}.attacks: {attack} bounds another norm than {claim}; a worst case needs one norm")
        _check_audited(attack, keys, audit, f"{where}.attacks: {attack}")
    if not plugins.declared(kind, claim, "uses_gradient") or "rules" in keys["attacks"][claim]:
        raise UserError(f"{where}.claim: {claim} must use a gradient and attack every rule")
    _check_worst_case(keys, audit, where)


def _check_matched(keys: Mapping[str, Any], place: str) -> None:
    """Raises UserError if an audit compares with networks matched in accuracy that are not trained."""
    if "population" in keys or "retrieval" in keys:
        what = "a population" if "population" in keys else "retrieval"
        raise UserError(f"{place}: {what} has no networks that are matched in accuracy; say bp")
    lacking = [rule for rule in keys["rules"] if rule not in ("bp", *keys["finetune"].get("matched", []))]
    if lacking:
        raise UserError(f"{place}: {lacking[0]} has no matched network; add it to `finetune.matched`")


def _check_worst_case(keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    """Raises UserError if an audit lacks a second seed, the exact gradient, or a kind of attack."""
    audited, kind = Experiment("", keys), attack_kind(keys)
    compared = keys["attacks"][audit["claim"]].get("backbones", audited.networks)
    if not given(keys) and any(len(audited.seeds_of(network, "bp")) == 1 for network in compared):
        raise UserError(f"{where}: one seed says nothing about another training; give at least two `seeds`")
    differentiating = [name for name in audit["attacks"] if plugins.declared(kind, name, "uses_gradient")]
    exact = [name for name in differentiating if "exact" in _gradients(keys, name)]
    if not exact:
        raise UserError(f"{where}.attacks: none uses the exact gradient, without which a hidden one cannot be told")
    others = [name for name in audit["attacks"] if name not in differentiating]
    settings = {name: audited.attack(name, "exact").get("settings", {}) for name in (*exact, *others)}
    required = required_of("retrieval" if "retrieval" in keys else "classification")
    if lacking := missing(settings, required):
        raise UserError(f"{where}.attacks: the worst case lacks {lacking[0]}; add one")


def _check_audited(attack: str, keys: Mapping[str, Any], audit: Mapping[str, Any], where: str) -> None:
    chosen, claimed = keys["attacks"][attack], keys["attacks"][audit["claim"]]
    uses_gradient = plugins.declared(attack_kind(keys), attack, "uses_gradient")
    everyone = {*keys["rules"], *controls_of(keys)}
    attacked = set(chosen.get("rules", everyone))
    only_feedback = uses_gradient and "exact" not in _gradients(keys, attack)
    # An attack through feedback weights may be for some rules only, as BP's feedback weights are its own.
    if attacked != everyone and (reference_of(keys) in attacked or not only_feedback):
        raise UserError(f"{where} does not attack every rule, so that worst cases would not compare")
    compared = set(audit.get("datasets", trained_datasets(keys)))
    differ = {
        "datasets": [set(part.get("datasets", compared)) & compared for part in (chosen, claimed)],
        "backbones": [part.get("backbones") for part in (chosen, claimed)],
    }
    for key, (here, there) in differ.items():
        if here != there:
            raise UserError(
                f"{where} and {audit['claim']} have different `{key}`, so that worst cases would not compare"
            )
    if "datasets" in audit and (left_out := compared - set(claimed.get("datasets", compared))):
        raise UserError(f"{where} does not attack {min(left_out)}, which is under `audit.datasets`")
    if set(chosen.get("seeds", keys["seeds"])) != set(keys["seeds"]):
        raise UserError(f"{where} leaves out seeds, so that worst cases would not compare")
    for gradient in _gradients(keys, attack) if uses_gradient else ["none"]:
        epsilons = _of_gradient(keys, attack, gradient)["epsilons"]
        for epsilon in [] if parse_gradient(gradient).rule else audit["epsilons"]:
            if epsilon not in epsilons:
                raise UserError(f"{where} has no epsilon {epsilon}; it has {epsilons}")


def _gradients(keys: Mapping[str, Any], attack: str) -> list[str]:
    gradients: list[str] = keys["attacks"][attack].get("gradients", keys["gradients"])
    return gradients
