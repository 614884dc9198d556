"""What the stages that attack a model share: options, the attacker's view of the model, facts of the record."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from creditflow.attacks.attack import Views
from creditflow.attacks.judge import Helpers
from creditflow.compute import randomness
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import SettingsModel, parse, plain
from creditflow.feedback.apply import apply_rule, get_rule
from creditflow.models.build import ImageClassifier
from creditflow.models.storage import load_feedback, load_model
from creditflow.stages.command_line import epsilon, existing_file, json_object, positive
from creditflow.stages.identity import add_expected_model, check_model
from creditflow.stages.measuring import placed
from creditflow.stages.settings_help import add_settings_help, parse_or_show_settings

#: The two kinds of attacks that are plugins: on classifiers, and on the hash codes of retrieval.
AttackKind = Literal["attack", "hash_attack"]


def add_attack_options(parser: argparse.ArgumentParser, kind: AttackKind, attacked: str, example: str) -> None:
    """Adds the options that say how a model is attacked; `attacked` is a noun in the plural."""
    parser.add_argument("--attack", required=True, help=f"one of: {', '.join(plugins.names(kind))}")
    parser.add_argument(
        "--gradient",
        choices=["exact", "feedback", "none"],
        default="exact",
        help="weights that the attacker's gradient runs through: the forward or the feedback weights;"
        " none for an attack that uses no gradient",
    )
    parser.add_argument(
        "--epsilons", type=epsilon, nargs="+", required=True, help="perturbation sizes, pixels in [0, 1]"
    )
    parser.add_argument("--settings", type=json_object, default={}, help=f"settings of the attack, such as {example}")
    add_settings_help(parser, "attack")
    parser.add_argument(
        "--images", type=positive, default=1000, help=f"number of {attacked}; the same ones for every model"
    )
    parser.add_argument("--batch-size", type=positive, default=250, help=f"number of {attacked} attacked at once")


def add_surrogate_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name a surrogate, and say what it must be."""
    parser.add_argument("--surrogate", type=existing_file, help="model that a transfer attack makes its images on")
    add_expected_model(parser, "surrogate")


def parse_attack_options(parser: argparse.ArgumentParser, kind: AttackKind) -> argparse.Namespace:
    """Returns the parsed options; with --help-settings, shows the settings of the attack and ends instead.

    Raises UserError if settings are asked for of an attack that is not there.
    """
    return parse_or_show_settings(parser, "attack", kind)


def attack_settings(args: argparse.Namespace, kind: AttackKind, uses_gradient: bool) -> SettingsModel:
    """Returns the attack's settings. Raises UserError for wrong ones, and for a gradient that does not fit."""
    check_gradient(args.attack, uses_gradient, args.gradient)
    return parse(plugins.settings_class(kind, args.attack), args.settings, f"settings of attack {args.attack}")


def check_gradient(attack: str, uses_gradient: bool, gradient: str) -> None:
    """Raises UserError for an attacker's gradient (exact, feedback or none) that does not fit the attack."""
    if uses_gradient == (gradient == "none"):
        fitting = "exact or feedback" if uses_gradient else "none"
        raise UserError(f"--gradient {gradient} does not fit the attack {attack}; use {fitting}")


def attack_facts(
    args: argparse.Namespace, norm: str, settings: SettingsModel, sidecar: dict[str, Any]
) -> dict[str, Any]:
    """Returns what the record says of the attack: everything, beside the data, that its outcomes follow from."""
    return {
        "attack": args.attack,
        "gradient": args.gradient,
        "norm": norm,
        "parameters": plain(settings),
        "epsilons": args.epsilons,
        "images": args.images,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "model": sidecar["sha256"],
    }


def attacker_view(path: Path, model: ImageClassifier, gradient: str) -> nn.Module:
    """Returns the model as the attacker differentiates it: plain, or with the feedback weights of its training."""
    if gradient != "feedback":
        return model
    rule, state = load_feedback(path)
    device = next(model.parameters()).device
    # The model is placed first: a rule that remembers the forward weights would take a change of their layout for a
    # step of training, and might draw its feedback weights anew.
    return placed(apply_rule(placed(model, device), rule, state=state), device)


def helpers(args: argparse.Namespace, model: ImageClassifier) -> Helpers:
    """Returns what an attack may use beside the model: a surrogate, and views with other feedback weights.

    Raises UserError if the surrogate is not the one that is expected, or takes other images or classes.
    """
    surrogate = None
    if args.surrogate is not None:
        check_model(args.surrogate, args.expect_surrogate, args.data)
        surrogate = load_model(args.surrogate)
        if (surrogate.spec.image_shape, surrogate.spec.n_classes) != (model.spec.image_shape, model.spec.n_classes):
            raise UserError(f"--surrogate {args.surrogate} takes other images or classes than {args.model}")
        surrogate = placed(surrogate, next(model.parameters()).device)
    return Helpers(surrogate, _drawing_views(args, model) if args.gradient == "feedback" else None)


def _drawing_views(args: argparse.Namespace, model: ImageClassifier) -> Views | None:
    """Returns what makes views with independent draws, for a rule that draws feedback weights during training."""
    rule, _ = load_feedback(args.model)
    if not get_rule(rule).redraws:
        return None
    device = next(model.parameters()).device
    generator = randomness.generator("expectation", args.seed, device=device)

    def views(n: int, /) -> Sequence[nn.Module]:
        return [placed(apply_rule(model, rule, generator=generator), device).eval() for _ in range(n)]

    return views
