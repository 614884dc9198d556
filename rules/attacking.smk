"""What the attacking jobs are told: the attack's keys, whose gradient it uses, and the models it transfers from."""

from creditflow.core.gradients import of_folder, parse_gradient
from creditflow.core.matched import trained_by


def gradient(wildcards):
    """The gradient that a job uses; the wildcard is its folder."""
    return of_folder(wildcards.gradient)


def feedback_rule(wildcards):
    """The rule whose feedback weights the attacker differentiates through; nothing for other gradients."""
    chosen = parse_gradient(of_folder(wildcards.get("gradient", "none")))
    return wildcards.rule if chosen.kind == "feedback" else chosen.rule


def of_attack(key, default=None):
    """A value of the wildcards' attack through the wildcards' gradient."""
    return lambda wildcards: experiment(wildcards).attack(wildcards.attack, gradient(wildcards)).get(key, default)


def attack_settings(wildcards):
    """The parameters of an attack, as compact JSON."""
    return compact(of_attack("settings", {})(wildcards))


def surrogate_models(wildcards):
    """The models that an attack makes its images on, without suffix, by their names; nothing for most attacks."""
    chains = outputs.surrogates(experiment(wildcards), model_of(wildcards), wildcards.attack, gradient(wildcards))
    return {name: outputs.model(experiment(wildcards), RESULTS, chain) for name, chain in chains.items()}


def surrogate_files(wildcards):
    """The models that an attack makes its images on, with their sidecars; nothing for most attacks."""
    return [str(path) for model in surrogate_models(wildcards).values() for path in outputs.with_sidecar(model)]


def surrogates(wildcards):
    """The options that name the models that an attack makes its images on."""
    return [f"--surrogate={name}={model}.safetensors" for name, model in surrogate_models(wildcards).items()]


def expected_surrogates(wildcards):
    """The options that say what the models are that an attack makes its images on."""
    chains = outputs.surrogates(experiment(wildcards), model_of(wildcards), wildcards.attack, gradient(wildcards))
    identities = {name: outputs.identity(experiment(wildcards), chain) for name, chain in chains.items()}
    return [f"--expect-surrogate={name}={compact(identity)}" for name, identity in identities.items()]


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
