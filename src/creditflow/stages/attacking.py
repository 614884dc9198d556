"""What the stages that attack a model share: options, the attacker's view of the model, facts of the record."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from creditflow.attacks.attack import Views
from creditflow.attacks.foreign import view_of
from creditflow.attacks.judge import Helpers
from creditflow.compute import randomness
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.gradients import SURROGATES, Gradient, parse_gradient
from creditflow.core.settings import SettingsModel, parse, plain
from creditflow.data.prepared import Subset
from creditflow.derivatives.scope import Missing
from creditflow.feedback.apply import FeedbackScale, apply_rule, get_rule
from creditflow.feedback.scaling import feedback_norms
from creditflow.models.build import ImageClassifier
from creditflow.models.fitting import check_fits
from creditflow.models.storage import load_feedback, load_model, read_sidecar
from creditflow.stages.command_line import epsilon, existing_file, gradient, json_object, named, natural, positive
from creditflow.stages.identity import check_model
from creditflow.stages.measuring import placed
from creditflow.stages.settings_help import add_settings_help, parse_or_show_settings

#: The two kinds of attacks that are plugins: on classifiers, and on the hash codes of retrieval.
AttackKind = Literal["attack", "hash_attack"]


def add_attack_options(parser: argparse.ArgumentParser, kind: AttackKind, attacked: str, example: str) -> None:
    """Adds the options that say how a model is attacked; `attacked` is a noun in the plural."""
    parser.add_argument("--attack", required=True, help=f"one of: {', '.join(plugins.names(kind))}")
    add_gradient_option(parser)
    parser.add_argument(
        "--epsilons", type=epsilon, nargs="+", required=True, help="perturbation sizes, pixels in [0, 1]"
    )
    parser.add_argument("--settings", type=json_object, default={}, help=f"settings of the attack, such as {example}")
    add_settings_help(parser, "attack")
    parser.add_argument(
        "--images", type=positive, default=1000, help=f"number of {attacked}; the same ones for every model"
    )
    parser.add_argument("--batch-size", type=positive, default=250, help=f"number of {attacked} attacked at once")


def add_gradient_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says what the attacker differentiates."""
    parser.add_argument(
        "--gradient",
        type=gradient,
        default="exact",
        help="what the attacker differentiates: exact, the network itself; own, whatever the backward pass of a given"
        " model gives; feedback, through the feedback weights of its training; through:RULE or through:RULE:DRAW,"
        " through fresh feedback weights of a rule;"
        f" {', '.join(f'surrogate:{name}' for name in SURROGATES)}, another model; none, nothing",
    )


def add_surrogate_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name surrogates, and say what they must be."""
    parser.add_argument(
        "--surrogate",
        type=named(SURROGATES, existing_file),
        action="append",
        default=[],
        metavar="NAME=MODEL",
        help=f"model that images are transferred from, called {' or '.join(SURROGATES)}; can be given for each name",
    )
    parser.add_argument(
        "--expect-surrogate",
        type=named(SURROGATES, json_object),
        action="append",
        default=[],
        metavar="NAME=JSON",
        help='what a surrogate must be, such as twin={"rule": "bp", "seed": 0}; anything if absent',
    )


def add_judging_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of what is measured of an attack on a classifier beside its outcomes."""
    parser.add_argument(
        "--keep", type=natural, default=0, help="number of attacked images whose perturbed versions are kept"
    )
    parser.add_argument(
        "--check-convergence",
        action="store_true",
        help="attack the images that are left with twice the steps, too, and note how far accuracy falls",
    )


def parse_attack_options(parser: argparse.ArgumentParser, kind: AttackKind) -> argparse.Namespace:
    """Returns the parsed options; with --help-settings, shows the settings of the attack and ends instead.

    Raises UserError if settings are asked for of an attack that is not there.
    """
    return parse_or_show_settings(parser, "attack", kind)


def attack_settings(
    args: argparse.Namespace, kind: AttackKind, uses_gradient: bool, uses_surrogate: bool = False
) -> SettingsModel:
    """Returns the attack's settings. Raises UserError for wrong ones, and for a gradient that does not fit."""
    check_gradient(args.attack, uses_gradient, uses_surrogate, args.gradient)
    return parse(plugins.settings_class(kind, args.attack), args.settings, f"settings of attack {args.attack}")


def check_gradient(attack: str, uses_gradient: bool, uses_surrogate: bool, gradient: str) -> None:
    """Raises UserError for an attacker's gradient that does not fit what the attack uses."""
    if uses_gradient:
        fitting = "exact, own, feedback or through:<rule>"
    else:
        fitting = " or ".join(f"surrogate:{name}" for name in SURROGATES) if uses_surrogate else "none"
    kinds = (
        ("exact", "own", "feedback", "through") if uses_gradient else ("surrogate",) if uses_surrogate else ("none",)
    )
    if parse_gradient(gradient).kind not in kinds:
        raise UserError(f"--gradient {gradient} does not fit the attack {attack}; use {fitting}")


def attack_facts(
    args: argparse.Namespace, norm: str, settings: SettingsModel, sidecar: dict[str, Any]
) -> dict[str, Any]:
    """Returns what the record says of the attack: everything, beside the data, that its outcomes follow from."""
    chosen = parse_gradient(args.gradient)
    return {
        "attack": args.attack,
        "gradient": args.gradient,
        "through": {"rule": chosen.rule, "draw": chosen.draw} if chosen.kind == "through" else None,
        "norm": norm,
        "parameters": plain(settings),
        "epsilons": args.epsilons,
        "images": args.images,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "model": sidecar["sha256"],
    } | given_facts(sidecar)


def given_facts(sidecar: dict[str, Any]) -> dict[str, Any]:
    """Returns what a record says of a given model: what its backward pass is worth; nothing of our own networks."""
    verdict = _verdict(sidecar)
    return {} if verdict is None else {"backward_pass": verdict}


def judging_facts(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what the record says of surrogates, and of what was measured beside the outcomes."""
    return {
        "surrogates": {name: read_sidecar(path)["sha256"] for name, path in sorted(args.surrogate)},
        "keep": args.keep,
        "check_convergence": args.check_convergence,
    }


def exact_view(model: nn.Module, path: Path) -> nn.Module:
    """Returns the model in the file `path` so that its gradient is the derivative of what it computes.

    It is one of our own networks itself, and a view of any other, unless its backward pass is known to be honest.
    Where `import_model` has found no useful derivative, that of the view is zero, and the guards of attacks say so.
    """
    if isinstance(model, ImageClassifier):
        return model
    verdict = _verdict(read_sidecar(path))
    # The check took functions without a derivative for constants, too.
    missing: Missing = "error" if verdict is None else "zero"
    return view_of(model, "exact", honest=verdict == "honest", missing=missing)


def is_said_to_be_exact(args: argparse.Namespace, model: nn.Module) -> bool:
    """Returns whether an attack follows the exact gradient of a given model; tests check that of our own networks."""
    exact = parse_gradient(args.gradient).kind == "exact" and not isinstance(model, ImageClassifier)
    return exact and _verdict(read_sidecar(args.model)) != "no useful gradient"


def _verdict(sidecar: dict[str, Any]) -> str | None:
    """Returns what `import_model` says of the backward pass of a given model; None for any other model."""
    checked = sidecar.get("gradient")
    return str(checked.get("verdict")) if isinstance(checked, dict) else None


def attacker_view(args: argparse.Namespace, model: nn.Module) -> nn.Module:
    """Returns the model as the attacker differentiates it.

    It is the plain model, or a view of it with the feedback weights of its training, or with fresh ones of the rule
    that `--gradient through:<rule>` names. The random numbers of fresh ones follow from rule, draw and `--seed` alone,
    so that networks of the same shapes are attacked with the same ones, on every device; their scale is that of the
    network's training. A given model is plain for
    `own`; for `exact` see `exact_view`.

    Raises UserError for a rule that is unknown or cannot be put on the model, for a second draw of a rule that draws
    nothing, and for a gradient that the model has not.
    """
    chosen, device = parse_gradient(args.gradient), device_of(model)
    _check_kind(chosen, model, args.model)
    # The model is placed first: a rule that remembers the forward weights would take a change of their layout for a
    # step of training, and might draw its feedback weights anew.
    if chosen.kind == "feedback":
        rule, state = load_feedback(args.model)
        return placed(apply_rule(placed(model, device), rule, state=state), device)
    if chosen.kind == "through":
        _check_draw(chosen)
        generator = randomness.generator("through", chosen.rule, chosen.draw, args.seed)
        scale = _trained_scale(args, chosen.rule)
        return placed(apply_rule(placed(model, device), chosen.rule, generator=generator, scale=scale), device)
    return exact_view(model, args.model) if chosen.kind == "exact" else model


def _trained_scale(args: argparse.Namespace, rule: str) -> FeedbackScale:
    """Returns the scale of feedback weights that a model was fine-tuned with; "sigma" for a rule that has one size."""
    norm = read_sidecar(args.model).get("settings", {}).get("settings", {}).get("scale") == "norm"
    return "norm" if norm and (get_rule(rule).scaled or get_rule(rule).exact) else "sigma"


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of a model; the CPU for one without parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _check_kind(chosen: Gradient, model: nn.Module, path: Path) -> None:
    """Raises UserError for `feedback` of a given model, and for `own` of one of our networks."""
    is_classifier = isinstance(model, ImageClassifier)
    if chosen.kind == "feedback" and not is_classifier:
        raise UserError(f"--gradient feedback: {path} is a given model, which no rule has trained; use own or exact")
    if chosen.kind == "own" and is_classifier:
        raise UserError(f"--gradient own: the backward pass of {path} is exact; use exact or feedback")


def _check_draw(chosen: Gradient) -> None:
    """Raises UserError for a later draw of a rule without random numbers: all its draws are the same."""
    if chosen.draw == 1:
        return
    try:
        get_rule(chosen.rule).initial_state(torch.ones(1, 1), None)
    except UserError:
        return  # without a generator it cannot draw
    raise UserError(f"--gradient {chosen}: {chosen.rule} draws no random numbers; use through:{chosen.rule}")


def helpers(args: argparse.Namespace, model: nn.Module, data: Subset | None = None) -> Helpers:
    """Returns what an attack may use beside the model: surrogates, and views with other feedback weights.

    Images are made on the exact gradient of a surrogate, or on its own where that is the only useful one. A given
    surrogate is tried on images of `data`.

    Raises UserError if a surrogate is given twice, is not the one that is expected, takes other images or classes, or
    is not the one that the gradient names.
    """
    paths, expected = dict(args.surrogate), dict(args.expect_surrogate)
    if len(paths) < len(args.surrogate):
        raise UserError("--surrogate: a name is given twice; give each surrogate once")
    chosen = parse_gradient(args.gradient)
    if chosen.kind == "surrogate" and set(paths) != {chosen.surrogate}:
        raise UserError(f"--gradient {chosen} needs --surrogate {chosen.surrogate}=<model>, and no other surrogate")
    surrogates = {name: _surrogate(args, model, path, expected.get(name), data) for name, path in sorted(paths.items())}
    return Helpers(surrogates=surrogates, views=_drawing_views(args, model, chosen))


def _surrogate(
    args: argparse.Namespace, model: nn.Module, path: Path, expected: dict[str, Any] | None, data: Subset | None
) -> nn.Module:
    check_model(path, expected, args.data)
    surrogate, device = load_model(path), device_of(model)
    if isinstance(model, ImageClassifier) and isinstance(surrogate, ImageClassifier):
        if (surrogate.spec.image_shape, surrogate.spec.n_classes) != (model.spec.image_shape, model.spec.n_classes):
            raise UserError(f"--surrogate {path} takes other images or classes than {args.model}")
    elif data is not None:
        check_fits(surrogate, data.to(torch.device("cpu")), f"--surrogate {path}")
    if not isinstance(surrogate, ImageClassifier):
        useful = _verdict(read_sidecar(path)) != "no useful gradient"
        return exact_view(placed(surrogate, device), path) if useful else placed(surrogate, device)
    return placed(surrogate, device)


def _drawing_views(args: argparse.Namespace, model: nn.Module, chosen: Gradient) -> Views | None:
    """Returns what makes views with independent draws, for a rule that draws feedback weights during training."""
    if chosen.kind not in ("feedback", "through"):
        return None
    rule = chosen.rule
    if rule:
        scale = _trained_scale(args, rule)
    else:
        rule, state = load_feedback(args.model)
        scale = feedback_norms(state) or "sigma"
    if not get_rule(rule).redraws:
        return None
    device = device_of(model)
    names = ("expectation", str(chosen)) if chosen.kind == "through" else ("expectation",)
    generator = randomness.generator(*names, args.seed)

    def views(n: int, /) -> Sequence[nn.Module]:
        return [placed(apply_rule(model, rule, generator=generator, scale=scale), device).eval() for _ in range(n)]

    return views
