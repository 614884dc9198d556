"""What the stages that measure a model share: their options, the model they look at, the record's keys and metrics."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from creditflow.attacks.judge import AttackResult, Helpers
from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.inputs import InputSettings
from creditflow.data.prepared import Subset, load_prepared
from creditflow.feedback.apply import apply_rule, get_rule
from creditflow.models.build import ImageClassifier
from creditflow.models.storage import load_feedback, load_model, read_sidecar
from creditflow.records.record import Keys, Metric
from creditflow.stages.command_line import existing_file, json_object, natural

Model = TypeVar("Model", bound=nn.Module)

#: Numbers of a training history that go into the record.
_HISTORY = (
    "loss",
    "train_accuracy",
    "validation_accuracy",
    "validation_adversarial_accuracy",
    "test_accuracy",
    "test_adversarial_accuracy",
    "test_map",
    "update_angle",
    "feedback_cosine",
    "v_cosine",
    "effective_rank",
    "h_mean_eigenvalue",
    "h_largest_eigenvalue",
)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what is measured."""
    parser.add_argument(
        "--model",
        type=existing_file,
        required=True,
        help="model file that finetune.py, pretrain.py or select_member.py wrote",
    )
    parser.add_argument("--data", type=existing_file, required=True, help="dataset that prepare.py wrote")
    parser.add_argument(
        "--input", type=json_object, default={}, help='what the network sees, such as {"size": 224, "channels": 3}'
    )
    parser.add_argument("--classes", type=natural, nargs="+", help="labels to use, renumbered 0, 1, ...; all if absent")
    parser.add_argument("--experiment", default="manual", help="name under which the record is filed")
    parser.add_argument("--dataset-name", help="name of the data in the record; the data file's folder if absent")


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says where the record goes."""
    parser.add_argument("--record", type=Path, required=True, help="record to write (.json, outcomes beside it)")


def loaded(args: argparse.Namespace, device: torch.device) -> tuple[ImageClassifier, dict[str, Any], Subset]:
    """Returns the plain model, its sidecar and the test split, on the device.

    Raises UserError as `load_model` and `load_prepared` do, and if model and data do not fit each other.
    """
    inputs = parse(InputSettings, args.input, "--input")
    model, data = load_model(args.model), load_prepared(args.data, "test", args.classes, inputs)
    ours, theirs = (model.spec.image_shape, model.spec.n_classes), (data.image_shape, len(data.class_names))
    if ours != theirs:
        what = f"{args.model} takes images {ours[0]} of {ours[1]} classes, the data has {theirs[0]} of {theirs[1]}"
        raise UserError(f"{what}; check --data, --classes and --input")
    return placed(model, device), read_sidecar(args.model), data.to(device)


def placed(model: Model, device: torch.device) -> Model:
    """Moves a model to its device; on a CPU convolutions compute with channels last (docs/performance.md says why)."""
    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    return model


def attacker_view(path: Path, model: ImageClassifier, gradient: str) -> nn.Module:
    """Returns the model as the attacker differentiates it: plain, or with the feedback weights it was trained with."""
    if gradient != "feedback":
        return model
    rule, state = load_feedback(path)
    device = next(model.parameters()).device
    # The model first: a rule that notes its weights takes a change of their layout for a step, and may draw anew.
    return placed(apply_rule(placed(model, device), rule, state=state), device)


def helpers(args: argparse.Namespace, model: ImageClassifier, gradient: str) -> Helpers:
    """Returns what an attack may use beside the model: its surrogate, and views with other draws of its feedback weights.

    Raises UserError if the surrogate takes other images or classes.
    """
    surrogate = None
    if args.surrogate is not None:
        surrogate = load_model(args.surrogate)
        if (surrogate.spec.image_shape, surrogate.spec.n_classes) != (model.spec.image_shape, model.spec.n_classes):
            raise UserError(f"--surrogate {args.surrogate} takes other images or classes than {args.model}")
        surrogate = placed(surrogate, next(model.parameters()).device)
    return Helpers(surrogate, _drawing_views(args, model) if gradient == "feedback" else None)


def _drawing_views(args: argparse.Namespace, model: ImageClassifier) -> Callable[[int], Sequence[nn.Module]] | None:
    """Returns n -> n views with independent draws, for a rule that draws its feedback weights anew during training."""
    rule, _ = load_feedback(args.model)
    if not get_rule(rule).redraws:
        return None
    device = next(model.parameters()).device
    generator = randomness.generator("expectation", args.seed, device=device)

    def views(n: int) -> Sequence[nn.Module]:
        return [placed(apply_rule(model, rule, generator=generator), device).eval() for _ in range(n)]

    return views


def check_gradient(attack: str, uses_gradient: bool, gradient: str) -> None:
    """Raises UserError for an attacker's gradient (exact, feedback or none) that does not fit the attack."""
    if uses_gradient == (gradient == "none"):
        fitting = "exact or feedback" if uses_gradient else "none"
        raise UserError(f"--gradient {gradient} does not fit the attack {attack}; use {fitting}")


def record_keys(
    args: argparse.Namespace, sidecar: dict[str, Any], *, attack: str, gradient: str, task: str = "classification"
) -> Keys:
    """Returns the identifying keys of a measurement on this model."""
    return Keys(
        experiment=args.experiment,
        task=task,
        dataset=args.dataset_name or args.data.parent.name,
        backbone=sidecar.get("population", sidecar["spec"]["backbone"]),
        rule=sidecar["rule"],
        seed=sidecar.get("seed", args.seed),
        attack=attack,
        gradient=gradient,
    )


def history_metrics(sidecar: dict[str, Any], n_images: int) -> list[Metric]:
    """Returns what a model's training measured after each epoch, from its sidecar, and what was chosen for a population's member."""
    counts = sidecar.get("measured_images", {})
    metrics = [
        Metric(
            name,
            None,
            float(value),
            counts.get("update_angle" if name.startswith("angle_") else name, n_images),
            epoch=int(row["epoch"]),
        )
        for row in sidecar.get("history", [])
        for name, value in row.items()
        if name in _HISTORY
        or name.startswith("angle_")  # angle_bp_layer1, ...: there are as many as layers and dampings
    ]
    if "learning_rate" in sidecar:
        metrics.append(Metric("learning_rate", None, sidecar["learning_rate"], 1))
        metrics.append(Metric("chosen_epoch", None, sidecar["epoch"], 1))
    return metrics


def attack_metrics(result: AttackResult, epsilons: Sequence[float]) -> list[Metric]:
    """Returns robust accuracy at each epsilon, queries, and the median distance of attacks that measure one."""
    n = len(result.clean_correct)
    metrics = [
        Metric("robust_accuracy", size, float(correct.double().mean()), n)
        for size, correct in zip(epsilons, result.correct, strict=True)
    ]
    metrics.append(Metric("queries_per_image", None, result.queries_per_image, n))
    if "zero_gradients" in result.checks:
        metrics.append(Metric("zero_gradient_share", None, result.checks["zero_gradients"], n))
    # Over all images, infinite where none was found: over the fooled alone, the more robust model could seem the weaker.
    median = float(result.distance.double().median()) if result.distance is not None else float("inf")
    if median < float("inf"):
        metrics.append(Metric("median_distance", None, median, n))
    return metrics
