"""What the attacking jobs are told: the attack's keys, whose gradient it uses, and the models it transfers from."""

from functools import cache

from creditflow.core.gradients import of_folder, parse_gradient
from creditflow.core.matched import trained_by


def gradient(wildcards):
    """The gradient that a job uses; the wildcard is its folder."""
    return of_folder(wildcards.gradient)


def feedback_rule(wildcards):
    """The rule whose feedback weights the attacker differentiates through; nothing for other gradients."""
    chosen = parse_gradient(of_folder(wildcards.get("gradient", "none")))
    return wildcards.rule if chosen.kind == "feedback" else chosen.rule


@once_per("experiment", "attack", "gradient")
def attack_keys(wildcards):
    """The keys of the wildcards' attack through the wildcards' gradient."""
    return experiment(wildcards).attack(wildcards.attack, gradient(wildcards))


def of_attack(key, default=None):
    """A value of the wildcards' attack through the wildcards' gradient."""
    return lambda wildcards: attack_keys(wildcards).get(key, default)


@once_per("experiment", "attack", "gradient")
def attack_settings(wildcards):
    """The parameters of an attack, as compact JSON."""
    return compact(of_attack("settings", {})(wildcards))


@once_per("experiment", "attack", "gradient")
def transfers(wildcards):
    """Whether an attack makes its images on other models, as few attacks do."""
    return outputs.transfers(experiment(wildcards), wildcards.attack, gradient(wildcards))


@cache  # a model is a surrogate of many others
def surrogate(name, chain):
    """The files that are read of a model: its weights and its sidecar. And its identity, as compact JSON."""
    files = outputs.with_sidecar(outputs.model(EXPERIMENTS[name], RESULTS, chain))
    return list(map(str, files)), compact(outputs.identity(EXPERIMENTS[name], chain))


@once_per(*MODEL, "attack", "gradient")
def surrogate_models(wildcards):
    """The models that an attack that transfers makes its images on, by their names; each as `surrogate` says."""
    named = experiment(wildcards), model_of(wildcards), wildcards.attack, gradient(wildcards)
    chains = outputs.surrogates_of_transfer(*named)
    return {name: surrogate(wildcards.experiment, chain) for name, chain in chains.items()}


def surrogate_files(wildcards):
    """The models that an attack makes its images on, with their sidecars; nothing for most attacks."""
    if not transfers(wildcards):
        return []
    return [path for paths, _ in surrogate_models(wildcards).values() for path in paths]


def surrogates(wildcards):
    """The options that name the models that an attack makes its images on."""
    if not transfers(wildcards):
        return []
    return [f"--surrogate={name}={paths[0]}" for name, (paths, _) in surrogate_models(wildcards).items()]


def expected_surrogates(wildcards):
    """The options that say what the models are that an attack makes its images on."""
    if not transfers(wildcards):
        return []
    return [f"--expect-surrogate={name}={identity}" for name, (_, identity) in surrogate_models(wildcards).items()]


@once_per("experiment", "attack", "gradient")
def check_convergence(wildcards):
    """The option by which the attacks of an audit show whether they have converged."""
    checked = outputs.checks_convergence(experiment(wildcards), wildcards.attack, gradient(wildcards))
    return ["--check-convergence"] if checked else []


def training_rule(wildcards):
    """The rule that trains a network; backpropagation for `bp_matched_<rule>`."""
    return trained_by(wildcards.get("rule", ""))


def matched_record(wildcards):
    """The record of the accuracy at which the training of `bp_matched_<rule>` stops; nothing for other networks."""
    record = outputs.matched_record(experiment(wildcards), RESULTS, model_of(wildcards))
    return [] if record is None else [str(record)]


def why_settings(wildcards):
    """What is measured to say why attacks fail, as compact JSON."""
    chosen = keys(wildcards)["why"]
    return compact({key: value for key, value in chosen.items() if key not in ("gradients", "rules", "seeds")})
